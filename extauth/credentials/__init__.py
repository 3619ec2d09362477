"""The key that a call carries: under which header it comes, and what is done with copies of it elsewhere."""
