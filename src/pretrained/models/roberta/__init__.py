"""The RoBERTa family, and XLM-RoBERTa, which differs in its vocabulary alone."""
