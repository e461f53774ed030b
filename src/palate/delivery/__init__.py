"""What people and programs meet: the HTTP API and the web pages."""
