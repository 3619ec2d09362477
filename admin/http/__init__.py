"""HTTP: the routes, the edge, bodies, problems, and the API's document."""
