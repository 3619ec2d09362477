{{/*
What the chart makes once and keeps: asked of the cluster first, so that an upgrade finds what the install made, and
remembered in the values, so that all objects of one rendering hold the same.
*/}}

{{- define "tollkeeper.made" -}}
{{- if not (hasKey .Values "made") }}
{{- $made := dict }}
{{- $_ := set $made "secrets" (include "tollkeeper.madeSecrets" .) }}
{{- $_ := set $made "password" (include "tollkeeper.kept" (dict "root" . "name" (include "tollkeeper.passwordName" .) "key" "password")) }}
{{- range list "gate" "admin" }}
{{- $_ := set $made (printf "%s-store" .) (include "tollkeeper.kept" (dict "root" $ "name" (printf "%s-valkey" $.Release.Name) "key" (printf "%s-password" .))) }}
{{- end }}
{{- $_ := set .Values "made" $made }}
{{- end }}
{{- end }}

{{/* A password of 40 characters (238 bits). */}}
{{- define "tollkeeper.kept" -}}
{{- $found := lookup "v1" "Secret" .root.Release.Namespace .name }}
{{- if and $found (hasKey ($found.data | default dict) .key) -}}
{{ index $found.data .key | b64dec }}
{{- else -}}
{{ randAlphaNum 40 }}
{{- end -}}
{{- end }}

{{/* The secrets file as `tollkeeper secrets init` writes it; the gate's copy counts too, should the admin's be lost. */}}
{{- define "tollkeeper.madeSecrets" -}}
{{- $name := include "tollkeeper.secretsName" . }}
{{- $found := lookup "v1" "Secret" .Release.Namespace $name | default (lookup "v1" "Secret" .Values.gateway.namespace $name) }}
{{- if and $found (hasKey ($found.data | default dict) "secrets.json") -}}
{{ index $found.data "secrets.json" | b64dec }}
{{- else -}}
{{ dict "peppers" (dict "1" (randBytes 32)) "current_pepper" 1 "mac_keys" (dict "1" (randBytes 32)) "current_mac_key" 1 "jwt_key" (randBytes 32) "recovery_key" (randBytes 32) | toPrettyJson }}
{{- end -}}
{{- end }}

{{/*
Authority, the gate's certificate and the proxies': found whole, or made anew, whose authority's key nobody keeps. One for
another name cannot be kept: no proxy would take the gate for the one that it is told to ask.
*/}}
{{- define "tollkeeper.madeTls" -}}
{{- if not (hasKey .Values "tlsMade") }}
{{- $server := lookup "v1" "Secret" .Release.Namespace (printf "%s-gate-server" .Release.Name) }}
{{- $client := lookup "v1" "Secret" .Values.gateway.namespace (printf "%s-gate-client" .Release.Name) }}
{{- $made := dict }}
{{- $name := include "tollkeeper.gateServerName" . }}
{{- if and $server $client }}
{{- $kept := dig "annotations" "tollkeeper.dev/server-name" "" $server.metadata }}
{{- if ne $kept $name }}
{{- fail (printf "gate.tls: the made certificate is for %q, but gate.tls.serverName and clusterDomain ask for %q: set gate.tls.serverName to the former, or have new certificates as the chart's README tells" $kept $name) }}
{{- end }}
{{- $_ := set $made "ca" (index $server.data "ca.crt" | b64dec) }}
{{- $_ := set $made "server" (dict "Cert" (index $server.data "tls.crt" | b64dec) "Key" (index $server.data "tls.key" | b64dec)) }}
{{- $_ := set $made "client" (dict "Cert" (index $client.data "tls.crt" | b64dec) "Key" (index $client.data "tls.key" | b64dec)) }}
{{- else }}
{{- $ca := genCA "tollkeeper-gate" 3650 }}
{{- $_ := set $made "ca" $ca.Cert }}
{{- $_ := set $made "server" (genSignedCert $name nil (list $name) 3650 $ca) }}
{{- $_ := set $made "client" (genSignedCert "envoy" nil (list "envoy") 3650 $ca) }}
{{- end }}
{{- $_ := set .Values "tlsMade" $made }}
{{- end }}
{{- end }}
