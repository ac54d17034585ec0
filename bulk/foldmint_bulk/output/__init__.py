"""What workers write: parts, records, and summaries of records."""
