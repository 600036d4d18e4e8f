"""The store on PostgreSQL, through psycopg 3 (the extra ``postgres``)."""
