"""Wire APIs: each folder has one API's schema, parser and writer (`app.inference.dialect`)."""
