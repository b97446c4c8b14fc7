"""Other engines beside ours: same checkpoint, same crops, one table."""
