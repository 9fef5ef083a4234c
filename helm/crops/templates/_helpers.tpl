{{- define "crops.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 42 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 42 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 42 | trimSuffix "-" }}{{ end }}
{{- end }}
{{- end }}

{{/* Selectors never change: a Deployment's cannot. (root, component) */}}
{{- define "crops.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Each key once: the chart's, then `more`, then those of all. (root, component, more) */}}
{{- define "crops.labels" -}}
{{- $own := include "crops.selector" . | fromYaml }}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) }}
{{- toYaml (merge $own (default dict .more) (default dict .root.Values.commonLabels)) }}
{{- end }}

{{/* Labels of a pod: a component's own beside those of all. (root, component, values) */}}
{{- define "crops.podLabels" -}}
{{ include "crops.labels" (merge (dict "more" .values.podLabels) .) }}
{{- end }}

{{/* Replicas of what an autoscaler drives. Helm owned the field before: left out of the manifest, the server would put 1. So what is
     live is kept, at least the minimum; on an upgrade that cannot look, what the values say. Nothing where nothing is there yet:
     tools that render without a cluster would set the number back at every look. (live, values, upgrade) */}}
{{- define "crops.replicas" -}}
{{- $least := int .values.autoscaling.min }}
{{- if and .live .live.spec }}
replicas: {{ max $least (int .live.spec.replicas) }}
{{- else if .upgrade }}
replicas: {{ min (int .values.autoscaling.max) (max $least (int .values.replicas)) }}
{{- end }}
{{- end }}

{{/* How many pods may be away at once. (values) */}}
{{- define "crops.budget" -}}
{{- if ne (toString .minAvailable) "" }}minAvailable: {{ .minAvailable }}
{{- else }}maxUnavailable: {{ .maxUnavailable }}
{{- end }}
{{- end }}

{{/* (root, name: gateway, triton or mine) */}}
{{- define "crops.image" -}}
{{- $image := index .root.Values.images .name }}
{{- $repository := ternary (printf "%s/%s" (trimSuffix "/" .root.Values.images.registry) $image.repository) $image.repository (ne .root.Values.images.registry "") }}
{{- $tag := default .root.Chart.AppVersion $image.tag }}
{{- if $image.digest }}{{ $repository }}@{{ $image.digest }}{{ else }}{{ $repository }}:{{ $tag }}{{ end }}
{{- end }}

{{/* The account of a component: its own, or the one that the values name for all. (root, component) */}}
{{- define "crops.account" -}}
{{- default (printf "%s-%s" (include "crops.fullname" .root) .component) .root.Values.serviceAccount.name }}
{{- end }}

{{/* What every pod has: no token, no root, the registry's secrets. (root, component) */}}
{{- define "crops.pod" -}}
serviceAccountName: {{ include "crops.account" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- include "crops.context" .root.Values.podSecurityContext }}
{{- end }}

{{/* A security context without what is null: there the platform decides. */}}
{{- define "crops.context" }}
securityContext:
  {{- range $key, $value := . }}
  {{- if not (kindIs "invalid" $value) }}
  {{ $key }}: {{ $value | toJson }}
  {{- end }}
  {{- end }}
{{- end }}

{{- define "crops.container" -}}
{{- include "crops.context" .Values.containerSecurityContext | trim }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
{{- end }}

{{/* Pods of one component apart from each other. (root, component, values) */}}
{{- define "crops.spread" -}}
topologySpreadConstraints:
  {{- with .values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "crops.selector" $ | nindent 8 }}
  {{- end }}
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
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- end }}

{{/* What a team adds to the containers and volumes of a component. (values) */}}
{{- define "crops.extraEnv" -}}
{{- with .extraEnv }}{{ toYaml . }}{{ end }}
{{- end }}
{{- define "crops.extraMounts" -}}
{{- with .extraVolumeMounts }}{{ toYaml . }}{{ end }}
{{- end }}
{{- define "crops.extraVolumes" -}}
{{- with .extraVolumes }}{{ toYaml . }}{{ end }}
{{- end }}

{{- define "crops.credentials" -}}
{{- with compact (list .Values.storage.credentialsSecret .Values.registrySecret) }}
envFrom:
  {{- range . }}
  - secretRef: {name: {{ . | quote }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* Whether anything here needs the shared volume; "" where object store and Kafka hold all. */}}
{{- define "crops.shared" -}}
{{- $v := .Values }}
{{- if or $v.storage.existingClaim $v.rolloutController.enabled (ne $v.events.kind "kafka") (not $v.storage.manifest) (not $v.storage.releases) }}yes{{ end }}
{{- end }}
{{- define "crops.sharedVolume" -}}
{{- if include "crops.shared" . }}
persistentVolumeClaim: {claimName: {{ include "crops.claim" . | quote }}}
{{- else }}
emptyDir: {}
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
{{/* The rollout's folder: state, audit trail, and the features that gateways follow. */}}
{{- define "crops.rollout" -}}
{{ default "/shared/rollout" .Values.storage.rollout }}
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

{{/* The file that says how Kafka lets us in, and the volume of its Secret. */}}
{{- define "crops.kafkaFile" -}}
{{- with .Values.events.kafka.existingSecret }}{{ if and .name (eq $.Values.events.kind "kafka") }}/etc/kafka/{{ .key }}{{ end }}{{ end }}
{{- end }}
{{- define "crops.kafkaMount" -}}
{{- if include "crops.kafkaFile" . }}- {name: kafka, mountPath: /etc/kafka, readOnly: true}{{ end }}
{{- end }}
{{- define "crops.kafkaVolume" -}}
{{- if include "crops.kafkaFile" . }}
- name: kafka
  secret: {secretName: {{ .Values.events.kafka.existingSecret.name | quote }}}
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
{{- if and $v.retrainHook.enabled (not (and $v.retrainHook.url $v.retrainHook.existingSecret.name)) }}
{{- fail "retrainHook.enabled needs retrainHook.url, which starts the CI's workflow, and retrainHook.existingSecret.name, which opens both doors" }}
{{- end }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "crops.fullname" .)) }}
{{- fail (printf "%q is no name of a Service (a letter first, then letters, digits and hyphens): set fullnameOverride" (include "crops.fullname" .)) }}
{{- end }}
{{- $ours := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" }}
{{- range $where, $labels := dict "commonLabels" $v.commonLabels "monitoring.labels" $v.monitoring.labels "gateway.podLabels" $v.gateway.podLabels "triton.podLabels" $v.triton.podLabels "rolloutController.podLabels" $v.rolloutController.podLabels "retrainHook.podLabels" $v.retrainHook.podLabels "compactor.podLabels" $v.compactor.podLabels }}
{{- range $key, $_ := $labels }}{{ if has $key $ours }}
{{- fail (printf "%s: %s is the chart's own label" $where $key) }}
{{- end }}{{ end }}
{{- end }}
{{- if and (not $v.serviceAccount.create) (not $v.serviceAccount.name) }}
{{- fail "serviceAccount.create is false: serviceAccount.name must say which account the pods have" }}
{{- end }}
{{- if and $v.redis.url $v.redis.existingSecret.name }}
{{- fail "redis.url and redis.existingSecret: choose one" }}
{{- end }}
{{- range $name := list "gateway" "triton" }}
{{- $of := index $v $name }}
{{- $scaled := eq $name "gateway" | ternary $v.gateway.autoscaling.enabled (ne $v.triton.autoscaling.kind "none") }}
{{- $least := int (ternary $of.autoscaling.min $of.replicas $scaled) }}
{{- if and (not (kindIs "string" $of.minAvailable)) (gt $least 0) (ge (int $of.minAvailable) $least) }}
{{- fail (printf "%s.minAvailable %d of %d replicas: no node could ever be drained" $name (int $of.minAvailable) $least) }}
{{- end }}
{{- if gt (int $of.autoscaling.min) (int $of.autoscaling.max) }}
{{- fail (printf "%s.autoscaling: min is %d, max is %d" $name (int $of.autoscaling.min) (int $of.autoscaling.max)) }}
{{- end }}
{{- end }}
{{- end }}
