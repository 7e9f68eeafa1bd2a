"""Pages and files that show a verdict; matplotlib and jinja2 load only when asked."""
