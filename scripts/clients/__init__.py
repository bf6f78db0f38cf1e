"""The matrix of client libraries: their environments, and the tests in them."""
