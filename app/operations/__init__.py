"""Operations: what an operator may do to a running server, by rules that know no HTTP."""
