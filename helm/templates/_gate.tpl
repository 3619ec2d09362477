{{/* The gate's container, in whichever pod, and its options. */}}

{{- define "tollkeeper.gateContainer" -}}
{{- $sidecar := eq .Values.gate.mode "sidecar" }}
name: gate
image: {{ include "tollkeeper.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- if $sidecar }}
restartPolicy: Always  # a native sidecar: it is ready before Envoy starts, and ends after it
{{- end }}
args:
{{ include "tollkeeper.gateArgs" . }}
{{- range .Values.gate.extraArgs }}
- {{ . | quote }}
{{- end }}
env:
{{ include "tollkeeper.storeEnv" (include "tollkeeper.gateStoreName" .) }}
ports:
{{- if not $sidecar }}
{{- range until (int .Values.gate.workers) }}
- {name: grpc-{{ . }}, containerPort: {{ add 9001 . }}}
- {name: endings-{{ . }}, containerPort: {{ add 9101 . }}}
{{- end }}
{{- end }}
- {name: gate-metrics, containerPort: 9090}
startupProbe:  # ready once: its store answers, and what it needs is loaded
  exec: {command: [tollkeeper, probe, --probe-ready]}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 90
livenessProbe:  # alive, not ready: a store that is away is no reason to start a gate anew
  httpGet: {path: /healthz, port: 9090}
  periodSeconds: 10
  timeoutSeconds: 5
{{- if not $sidecar }}
readinessProbe:
  httpGet: {path: /readyz, port: 9090}
  periodSeconds: 2
  timeoutSeconds: 5
{{- end }}
resources: {{ toYaml (.Values.gate.resources | default dict) | nindent 2 }}
securityContext: {{ include "tollkeeper.containerSecurity" (dict "uid" (include "tollkeeper.gateUid" .)) | nindent 2 }}
volumeMounts:
{{ include "tollkeeper.secretMounts" . }}
{{- if $sidecar }}
- {name: tollkeeper-gate, mountPath: /run/tollkeeper}
{{- else }}
- {name: tollkeeper-tls, mountPath: /etc/tollkeeper/tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "tollkeeper.gateArgs" -}}
- gate
{{- if eq .Values.gate.mode "sidecar" }}
- --listen=unix:/run/tollkeeper/{{ eq (int .Values.gate.workers) 1 | ternary "gate-0.sock" "gate.sock" }}  # of several, each adds its number itself
- --endings-listen=unix:/run/tollkeeper/{{ eq (int .Values.gate.workers) 1 | ternary "endings-0.sock" "endings.sock" }}
{{- else }}
- --listen=0.0.0.0:9001
- --endings-listen=0.0.0.0:9101
- --transport=grpcio
- --tls-certificate=/etc/tollkeeper/tls/tls.crt
- --tls-key=/etc/tollkeeper/tls/tls.key
- --tls-client-ca=/etc/tollkeeper/tls/ca.crt
- --drain-s={{ .Values.gate.drainSeconds }}
{{- end }}
- --http-listen=0.0.0.0:9090
- --workers={{ .Values.gate.workers }}
- --gateway-namespace={{ .Values.gateway.namespace }}
{{- if .Values.gateway.aiGateway }}
- --usage-metadata=io.envoy.ai_gateway:llm_total_token,llm_input_token,llm_output_token
{{- end }}
- --store-failure={{ .Values.gate.storeFailure }}
- --bounded-for-s={{ .Values.gate.boundedForSeconds }}
{{ include "tollkeeper.commonArgs" . }}
{{- end }}

{{/* A sidecar is of Envoy's own user: its socket is for that user alone. */}}
{{- define "tollkeeper.gateUid" -}}
{{ eq .Values.gate.mode "sidecar" | ternary 65532 10001 }}
{{- end }}

{{/*
Where Envoy finds the gate, with commas: a socket or port for each worker. Of more workers, those of fewer are the first:
the publisher tells every proxy at once, and a proxy whose gate is not replaced yet must find one of them there.
*/}}
{{- define "tollkeeper.gateTargets" -}}
{{- $targets := list }}
{{- range until (int .Values.gate.workers) }}
{{- if eq $.Values.gate.mode "deployment" }}
{{- $targets = append $targets (printf "%s:%d" (include "tollkeeper.gateHost" $) (add 9001 .)) }}
{{- else }}
{{- $targets = append $targets (printf "unix:/run/tollkeeper/gate-%d.sock" .) }}
{{- end }}
{{- end }}
{{- join "," $targets }}
{{- end }}


{{/* How the proxy's log tells endings, as the publisher writes it for an Envoy Gateway without a cluster. */}}
{{- define "tollkeeper.accessLog" -}}
{{- $several := or (gt (int .Values.gate.workers) 1) (eq .Values.gate.mode "deployment") }}
{{- $count := max 2 (int .Values.gate.workers) }}
settings:
- sinks:  # each call, as Envoy Gateway logs it where no log is named
  - {type: File, file: {path: /dev/stdout}}
- type: Route
  matches: ["'reservation' in metadata.filter_metadata['envoy.filters.http.ext_authz']"]
  sinks:
  - type: ALS
    als:
      type: HTTP
      logName: tollkeeper-endings
      http:
        responseHeaders: [content-type]
      backendRefs:
      - {group: gateway.envoyproxy.io, kind: Backend, name: {{ .Values.gateway.name }}-endings}
      backendSettings:
        loadBalancer: {type: RoundRobin}
        timeout: {tcp: {connectTimeout: 200ms}}
        http2: {connectionKeepalive: {interval: 15s, timeout: 10s}}  # a node that has gone without a word is found out
        {{- if $several }}
        healthCheck:
          active: {type: GRPC, timeout: 1s, interval: 1s, unhealthyThreshold: 1, healthyThreshold: 1}
          passive:
            splitExternalLocalOriginErrors: true
            consecutiveLocalOriginFailures: 1
            consecutiveGatewayErrors: 0
            consecutive5XxErrors: 0
            interval: 1s
            baseEjectionTime: 2s
            maxEjectionPercent: {{ div (mul 100 (sub $count 1)) $count }}
          panicThreshold: 1
        {{- end }}
{{- end }}

{{- define "tollkeeper.gateCa" -}}
{{ .Values.gate.tls.caConfigMap | default (printf "%s-gate-ca" .Release.Name) }}
{{- end }}

{{- define "tollkeeper.gateClient" -}}
{{ .Values.gate.tls.clientSecret | default (printf "%s-gate-client" .Release.Name) }}
{{- end }}

{{/* A gate reads its store's address once, so it starts anew where that has changed. Secrets and certificates it reads again. */}}
{{- define "tollkeeper.gateChecksums" -}}
{{- include "tollkeeper.made" . }}
checksum/store: {{ list .Values.store .Values.valkey.enabled (.Values.valkey.enabled | ternary (index .Values.made "gate-store") "") | toJson | sha256sum }}
{{- end }}
