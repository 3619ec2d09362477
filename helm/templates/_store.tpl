{{/* The trial Valkey's list of users: those of files/store-users.yaml, whose passwords stand there as hashes, and no other. */}}

{{- define "tollkeeper.storeUsers" -}}
{{- include "tollkeeper.made" . -}}
user default off
{{- range $name, $user := .Files.Get "files/store-users.yaml" | fromYaml }}
user {{ $name }} on #{{ index $.Values.made (printf "%s-store" $name) | sha256sum }} resetchannels -@all
{{- range $user.commands }} +{{ . }}{{ end }}
{{- range $user.keys }} ~{{ . }}{{ end }}
{{- range $user.reads }} %R~{{ . }}{{ end }} (
{{- range $user.scripts }}~{{ . }} {{ end }}-@all +eval +evalsha)
{{- end }}
{{ end }}
