"""What the API shows of a record: pure forms of the catalog's records, with what is asked for beside them."""
