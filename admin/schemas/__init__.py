"""What the API takes and gives. The same models check bodies and make the API's document."""
