"""The one-command machine: Valkey, Envoy, gate, admin and two sample models on this computer."""
