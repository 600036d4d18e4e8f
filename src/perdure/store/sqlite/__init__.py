"""The store on SQLite, through the standard library's driver."""
