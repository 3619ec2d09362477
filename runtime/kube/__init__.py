"""The Kubernetes API: requests and watches. Knows no kind of ours."""
