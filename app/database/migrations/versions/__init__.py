"""The steps, one a module, each named after its number: ``r0001_…`` is revision 0001."""
