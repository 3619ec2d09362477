"""What an Envoy's listeners are made of, beside the filters that know calls: TLS, redirects, replies, log, overload."""
