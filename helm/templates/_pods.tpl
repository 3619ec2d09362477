{{/* What all pods of ours have in common: no rights, no root, nothing to write but what is mounted for it. */}}

{{- define "tollkeeper.containerSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
privileged: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "tollkeeper.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid }}
runAsGroup: {{ .uid }}
fsGroup: {{ .uid }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Without service links: Kubernetes would set TOLLKEEPER_… variables of its own, which are names of our settings. */}}
{{- define "tollkeeper.podBasics" -}}
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{ include "tollkeeper.scheduling" . }}
{{- end }}

{{- define "tollkeeper.scheduling" -}}
{{- with .Values.scheduling }}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 0 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Spread over zones and nodes where there are several; never a reason not to run. */}}
{{- define "tollkeeper.spread" -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{ $.labels | nindent 6 }}
{{- end }}
{{- end }}

{{/* Passwords are in the URLs, so they come from a Secret as variables: arguments show in the list of processes. */}}
{{- define "tollkeeper.storeEnv" -}}
- name: TOLLKEEPER_RECORDS_URL
  valueFrom: {secretKeyRef: {name: {{ . }}, key: records-url}}
- name: TOLLKEEPER_BUDGETS_URL
  valueFrom: {secretKeyRef: {name: {{ . }}, key: budgets-url}}
{{- end }}

{{- define "tollkeeper.secretVolumes" -}}
- name: tollkeeper-secrets
  secret: {secretName: {{ include "tollkeeper.secretsName" . }}, defaultMode: 0440}
- name: tollkeeper-tmp
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
{{- with .Values.store.caSecret }}
- name: tollkeeper-store
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "tollkeeper.secretMounts" -}}
- {name: tollkeeper-secrets, mountPath: /etc/tollkeeper/secrets, readOnly: true}
- {name: tollkeeper-tmp, mountPath: /tmp}
{{- if .Values.store.caSecret }}
- {name: tollkeeper-store, mountPath: /etc/tollkeeper/store, readOnly: true}
{{- end }}
{{- end }}

{{/* `--workers=3` is workers, and so is `--no-workers`. */}}
{{- define "tollkeeper.optionName" -}}
{{ regexReplaceAll "(?s)^--(no-)?([^=]*).*$" . "${2}" }}
{{- end }}

{{- define "tollkeeper.commonArgs" -}}
- --secrets-file=/etc/tollkeeper/secrets/secrets.json
- --cells={{ .Values.store.cells }}
- --log-format={{ .Values.logFormat }}
- --log-level={{ .Values.logLevel }}
{{- end }}
