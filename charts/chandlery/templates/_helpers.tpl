{{/* What every object's name begins with: the release's name. A feed's and a pool's objects are the operator's. */}}
{{- define "chandlery.name" -}}
{{- default .Release.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What cluster-wide objects' names begin with: releases of one name in two namespaces don't meet. */}}
{{- define "chandlery.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "chandlery.name" .) -}}
{{- end -}}

{{/* Labels that choose a component's pods; they never change. */}}
{{- define "chandlery.selector" -}}
app.kubernetes.io/name: chandlery
app.kubernetes.io/instance: {{ .context.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "chandlery.labels" -}}
{{ include "chandlery.selector" . }}
app.kubernetes.io/part-of: chandlery
app.kubernetes.io/version: {{ .context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .context.Chart.Name .context.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Full name of an image: (dict "context" $ "image" .Values.images.operator). */}}
{{- define "chandlery.image" -}}
{{- $repository := .image.repository -}}
{{- with .context.Values.images.registry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}
{{- end -}}
{{- $tag := default .context.Chart.AppVersion .image.tag -}}
{{- if hasPrefix "sha256:" $tag -}}
{{- printf "%s@%s" $repository $tag -}}
{{- else -}}
{{- printf "%s:%s" $repository $tag -}}
{{- end -}}
{{- end -}}

{{- define "chandlery.serviceAccount" -}}
{{- default (printf "%s-operator" (include "chandlery.name" .)) .Values.serviceAccount.name -}}
{{- end -}}

{{/* Where Kafka is for feeds that don't say; empty: nowhere. */}}
{{- define "chandlery.kafka" -}}
{{- if .Values.kafka.embedded.enabled -}}
{{- printf "%s-kafka.%s.svc:9092" (include "chandlery.name" .) .Release.Namespace -}}
{{- else -}}
{{- .Values.kafka.bootstrapServers -}}
{{- end -}}
{{- end -}}

{{/* Whether there is a console; values of an earlier chart (--reuse-values) know none. */}}
{{- define "chandlery.hasConsole" -}}
{{- if dig "enabled" false (.Values.console | default dict) -}}
{{- if not (and .Values.console.networkPolicy .Values.images.console) -}}
{{- fail "console.enabled over the values of an earlier chart, which knew no console: upgrade with --reset-then-reuse-values instead of --reuse-values" -}}
{{- end -}}
yes
{{- end -}}
{{- end -}}

{{/* The Secret that holds the console's token: somebody's own, or the one that the operator makes. */}}
{{- define "chandlery.consoleToken" -}}
{{- default (printf "%s-console-token" (include "chandlery.name" .)) .Values.console.tokenSecret -}}
{{- end -}}

{{/* securityContext of pods and containers: the Pod Security Standard "restricted". */}}
{{- define "chandlery.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "chandlery.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "chandlery.pullSecrets" -}}
imagePullSecrets:
  {{- range .Values.images.pullSecrets }}
  - name: {{ . }}
  {{- end }}
{{- end -}}
