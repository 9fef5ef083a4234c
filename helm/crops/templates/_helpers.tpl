{{- define "crops.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- end }}

{{/* Selectors never change: a Deployment's cannot. (root, component) */}}
{{- define "crops.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "crops.labels" -}}
{{ include "crops.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* (root, name: gateway, triton or mine) */}}
{{- define "crops.image" -}}
{{- $image := index .root.Values.images .name }}
{{- $repository := ternary (printf "%s/%s" .root.Values.images.registry $image.repository) $image.repository (ne .root.Values.images.registry "") }}
{{- $tag := default .root.Chart.AppVersion $image.tag }}
{{- if $image.digest }}{{ $repository }}@{{ $image.digest }}{{ else }}{{ $repository }}:{{ $tag }}{{ end }}
{{- end }}

{{/* What every pod has: no token, no root, the registry's secrets. (root, component) */}}
{{- define "crops.pod" -}}
serviceAccountName: {{ include "crops.fullname" .root }}-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "crops.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
imagePullPolicy: {{ .Values.images.pullPolicy }}
{{- end }}

{{/* Pods of one component apart from each other. (root, component) */}}
{{- define "crops.spread" -}}
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "crops.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{/* (values of a component) */}}
{{- define "crops.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "crops.credentials" -}}
{{- with .Values.storage.credentialsSecret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "crops.claim" -}}
{{ default (printf "%s-shared" (include "crops.fullname" .)) .Values.storage.existingClaim }}
{{- end }}
{{- define "crops.manifest" -}}
{{ default "/shared/manifest.json" .Values.storage.manifest }}
{{- end }}
{{- define "crops.releases" -}}
{{ default "/shared/releases" .Values.storage.releases }}
{{- end }}
{{- define "crops.registry" -}}
{{- if .Values.registry }}{{ .Values.registry }}
{{- else if .Values.trial.mlflow.enabled }}http://{{ include "crops.fullname" . }}-mlflow:5000
{{- end }}
{{- end }}
{{- define "crops.redis" -}}
{{- if .Values.redis.url }}{{ .Values.redis.url }}
{{- else if .Values.trial.redis.enabled }}redis://{{ include "crops.fullname" . }}-redis:6379/0
{{- end }}
{{- end }}
{{- define "crops.kafka" -}}
{{- if .Values.events.kafka.servers }}{{ .Values.events.kafka.servers }}
{{- else if .Values.trial.kafka.enabled }}{{ include "crops.fullname" . }}-kafka:9092
{{- end }}
{{- end }}

{{/* What the schema cannot say: values that contradict each other. */}}
{{- define "crops.check" -}}
{{- $v := .Values }}
{{- if and (not $v.release.existing) (not (and $v.release.uri $v.release.sha256)) }}
{{- fail "no champion: release.existing is false, so release.uri (models:/NAME/VERSION) and release.sha256 must say which release starts" }}
{{- end }}
{{- if and (not $v.release.existing) (eq (include "crops.registry" .) "") }}
{{- fail "release.uri is pulled from MLflow: set registry, or trial.mlflow.enabled" }}
{{- end }}
{{- if and $v.ingress.enabled $v.gatewayApi.enabled }}
{{- fail "ingress.enabled and gatewayApi.enabled: choose one" }}
{{- end }}
{{- if and $v.triton.gpu.enabled (not (contains "cuda" (printf "%s:%s" $v.images.triton.repository $v.images.triton.tag))) }}
{{- fail "triton.gpu.enabled with a CPU image: images.triton must name the one of docker/triton-cuda.Dockerfile (its repository or tag says cuda)" }}
{{- end }}
{{- if and (eq $v.events.kind "kafka") (eq (include "crops.kafka" .) "") }}
{{- fail "events.kind is kafka: set events.kafka.servers, or trial.kafka.enabled" }}
{{- end }}
{{- if and $v.argoRollouts.enabled (ne $v.events.kind "kafka") }}
{{- fail "argoRollouts.enabled needs events.kind kafka: gateways that write segments are a StatefulSet, which Argo Rollouts cannot drive" }}
{{- end }}
{{- if and $v.argoRollouts.enabled (not $v.monitoring.serviceMonitors) }}
{{- fail "argoRollouts.enabled needs monitoring.serviceMonitors: its analysis tells pods apart by a label that they bring" }}
{{- end }}
{{- if and $v.rolloutController.enabled (eq (include "crops.registry" .) "") }}
{{- fail "rolloutController.enabled needs registry: it moves MLflow's aliases" }}
{{- end }}
{{- range $name := list "gateway" "triton" }}
{{- $of := index $v $name }}
{{- if and (gt (int $of.replicas) 0) (ge (int $of.minAvailable) (int $of.replicas)) (gt (int $of.replicas) 1) }}
{{- fail (printf "%s.minAvailable %d of %d replicas: no node could ever be drained" $name (int $of.minAvailable) (int $of.replicas)) }}
{{- end }}
{{- if gt (int $of.autoscaling.min) (int $of.autoscaling.max) }}
{{- fail (printf "%s.autoscaling: min is %d, max is %d" $name (int $of.autoscaling.min) (int $of.autoscaling.max)) }}
{{- end }}
{{- end }}
{{- end }}
