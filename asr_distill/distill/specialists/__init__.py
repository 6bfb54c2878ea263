"""Specialists beside a generalist (Hinton, Vinyals, Dean 2015, section 5), on senones."""
