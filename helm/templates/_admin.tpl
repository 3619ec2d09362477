{{/* The admin's options. */}}

{{- define "tollkeeper.adminArgs" -}}
- admin
- --listen=0.0.0.0:8085
- --http-listen=0.0.0.0:9092
- --publish-to=cluster
- --models={{ .Values.admin.models }}
- --gateway-namespace={{ .Values.gateway.namespace }}
- --gateway-name={{ .Values.gateway.name }}
- --gateway-listeners={{ include "tollkeeper.listeners" . }}
- --gateway-route-listeners={{ include "tollkeeper.routeListeners" . }}
- --gate-targets={{ include "tollkeeper.gateTargets" . }}
{{- if eq .Values.gate.mode "deployment" }}
- --gate-tls-name={{ include "tollkeeper.gateServerName" . }}
- --gate-tls-ca={{ .Values.gate.tls.caConfigMap | default (printf "%s-gate-ca" .Release.Name) }}
- --gate-tls-client={{ .Values.gate.tls.clientSecret | default (printf "%s-gate-client" .Release.Name) }}
{{- end }}
{{- if not .Values.gateway.patches }}
- --no-patches
{{- end }}
{{- if .Values.gateway.aiGateway }}
- --ai-gateway
- --usage-metadata=io.envoy.ai_gateway:llm_total_token,llm_input_token,llm_output_token
{{- end }}
{{- with .Values.admin }}
- --default-host={{ .defaultHost }}
- --gateway-url={{ .gatewayUrl }}
- --admin-username={{ .username }}
{{- with .corsOrigins }}
- --cors-origins={{ join "," . }}
{{- end }}
{{- with .trustedProxies }}
- --trusted-proxies={{ join "," . }}
{{- end }}
{{- if .allowAnonymous }}
- --allow-anonymous
{{- end }}
{{- if .keyRecovery }}
- --key-recovery
{{- end }}
{{- end }}
{{ include "tollkeeper.commonArgs" . }}
{{- end }}

{{/* Envoy has a listener for each port, and it is called after the first of those that share it. */}}
{{- define "tollkeeper.listeners" -}}
{{- $ports := dict }}
{{- $names := list }}
{{- range .Values.gateway.listeners }}
{{- $port := .port | toString }}
{{- if not (hasKey $ports $port) }}
{{- $_ := set $ports $port .name }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
{{- join "," $names }}
{{- end }}

{{/* Routes are looked up by listener with TLS, and by port without: there the first is named for each host. */}}
{{- define "tollkeeper.routeListeners" -}}
{{- $ports := dict }}
{{- $named := list }}
{{- range .Values.gateway.listeners }}
{{- $port := .port | toString }}
{{- $first := get $ports $port | default .name }}
{{- $_ := set $ports $port $first }}
{{- $name := ternary (printf "%s@%s" .name $first) $first (and (eq .protocol "HTTPS") (ne .name $first)) }}
{{- $named = append $named (printf "%s%s" $name (empty .hostname | ternary "" (printf "=%s" .hostname))) }}
{{- end }}
{{- join "," $named }}
{{- end }}

{{/* Cluster-wide, so it names the release's namespace too. */}}
{{- define "tollkeeper.roleName" -}}
{{ .Release.Namespace }}-{{ .Values.admin.name }}
{{- end }}
