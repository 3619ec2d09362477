"""The nouns of the command line, one a file: each verb's API call, its options' fields, the columns of lists."""
