"""An audit as JSON, CSV, Markdown, HTML and text."""
