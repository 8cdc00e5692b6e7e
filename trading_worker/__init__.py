"""What is done about it: the decision engine, virtual positions, the journal, the live shell."""
