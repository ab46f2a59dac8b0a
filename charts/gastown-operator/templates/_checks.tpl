{{/* Fails where the values lack blocks of this chart. Whatever reads one of these blocks first includes it. */}}
{{- define "gastown.checkValues" -}}
{{- if not (and .Values.common .Values.crds .Values.rbac .Values.monitoring) }}
{{- fail "the values are those of an older chart, as `helm upgrade --reuse-values` keeps them: upgrade with --reset-then-reuse-values (Helm 3.14), or with -f and your own values" }}
{{- end }}
{{- end }}

{{/* Fails, with what to do, where the values or the cluster do not allow this release. */}}
{{- define "gastown.checks" -}}
{{- $accounts := dict }}
{{- range include "gastown.controllers" . | fromYamlArray }}
{{- $account := include "gastown.account" (dict "root" $ "name" .) }}
{{- with index $accounts $account }}
{{- fail (printf "%s and another controller have the service account %s: each needs one of its own, since accounts decide who may call whom; set serviceAccount.name in the controllers' blocks" . $account) }}
{{- end }}
{{- $_ := set $accounts $account . }}
{{- end }}
{{- include "gastown.checkAlone" . }}
{{- if .Values.crds.install }}
{{- include "gastown.checkCrds" . }}
{{- end }}
{{- end }}

{{/* The release that an object in the cluster is of: its annotations, which Helm sets. Takes the object. */}}
{{- define "gastown.release" -}}
{{- $annotations := dig "metadata" "annotations" (dict) . | default dict -}}
{{- with index $annotations "meta.helm.sh/release-name" -}}
release {{ . }} in namespace {{ index $annotations "meta.helm.sh/release-namespace" }}
{{- end -}}
{{- end }}

{{/* Fails where another release is installed. Every installation has the ClusterRole gastown-operator-view. */}}
{{- define "gastown.checkAlone" -}}
{{- $role := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "gastown-operator-view" }}
{{- $us := printf "release %s in namespace %s" .Release.Name .Release.Namespace }}
{{- if $role }}
{{- $them := include "gastown.release" $role }}
{{- if not $them }}
{{- fail "gastown-operator is installed already, without Helm (there is a ClusterRole gastown-operator-view); its CRDs are cluster-wide, so a cluster has one installation. Delete its objects first, but not the CRDs: with them all objects of their kinds are deleted" }}
{{- else if ne $them $us }}
{{- fail (printf "gastown-operator is installed already as %s; its CRDs are cluster-wide, so a cluster has one installation. Upgrade that release, or uninstall it first" $them) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Fails where a CRD exists that is not of this release, with what to do about it. */}}
{{- define "gastown.checkCrds" -}}
{{- $us := printf "release %s in namespace %s" .Release.Name .Release.Namespace }}
{{- $strangers := list }}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" }}
{{- $name := printf "%s.gastown.gastown.io" (base $path | trimSuffix ".yaml") }}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name }}
{{- if $crd }}
{{- $isOurs := and (eq (include "gastown.release" $crd) $us) (eq (dig "metadata" "labels" "app.kubernetes.io/managed-by" "" $crd) "Helm") }}
{{- if not $isOurs }}{{ $strangers = append $strangers $name }}{{ end }}
{{- end }}
{{- end }}
{{- if $strangers }}
{{- fail (printf `these CRDs are in the cluster and are not of this release: %s. Either keep applying them yourself and set crds.install=false, or let this release have them:
  kubectl label --overwrite crd %s app.kubernetes.io/managed-by=Helm
  kubectl annotate --overwrite crd %s meta.helm.sh/release-name=%s meta.helm.sh/release-namespace=%s
` (join ", " $strangers) (join " " $strangers) (join " " $strangers) .Release.Name .Release.Namespace) }}
{{- end }}
{{- end }}
