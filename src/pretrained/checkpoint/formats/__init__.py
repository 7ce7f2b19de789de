"""One module for each way tensors lie in a file."""
