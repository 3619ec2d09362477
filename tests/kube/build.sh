#!/usr/bin/env bash
# Build what the tests on Kubernetes run, once, into a cache outside the repository, and print where it is.
#
#   build.sh            build what is not there; without Go this fails
#   build.sh --cached   only say where it is; exit code 1 where it is not built
#
# The folder has etcd, kube-apiserver, kube-controller-manager, kubectl and helm, and in crds/ the custom resources of
# the Gateway API and Envoy Gateway. All of it comes from Go modules: versions and checksums are in kubetest/go.mod and
# go.sum. A change of either, of the program or of Go is another folder.
set -euo pipefail
cd "$(dirname "$0")/kubetest"
envoy_gateway=1.9.1

version_of() { awk -v module="$1" '$1 == module && $2 ~ /^v/ { print $2; exit }' go.mod; }

say() { echo "kube: $*" >&2; }

# A server built without these calls itself v0.0.0, and helm takes any cluster for Kubernetes 1.20.
link_flags() {
    local kubernetes helm minor package
    kubernetes=$(version_of k8s.io/kubernetes)
    helm=$(version_of helm.sh/helm/v3)
    minor=$(cut -d. -f2 <<<"$kubernetes")
    echo -s -w -X "helm.sh/helm/v3/internal/version.version=$helm"
    for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        echo -X "$package.gitVersion=$kubernetes" -X "$package.gitMajor=1" -X "$package.gitMinor=$minor"
        echo -X "$package.gitTreeState=clean" -X "$package.buildDate=1970-01-01T00:00:00Z"
    done
    for package in helm.sh/helm/v3/pkg/chartutil helm.sh/helm/v3/pkg/lint/rules; do
        echo -X "$package.k8sVersionMajor=1" -X "$package.k8sVersionMinor=$minor"
    done
}

if ! command -v go >/dev/null; then
    say "Go is missing: Kubernetes cannot be built, and its tests cannot run"
    exit 1
fi
flags=$(link_flags | tr '\n' ' ')
stamp=$({ go env GOVERSION GOARCH; echo "$flags $envoy_gateway"; cat go.mod go.sum main.go; } | sha256sum | cut -c1-12)
caches=${XDG_CACHE_HOME:-$HOME/.cache}/tollkeeper
folder=$caches/kube-$stamp

if [[ -d $folder ]]; then echo "$folder"; exit; fi
if [[ ${1:-} == --cached ]]; then exit 1; fi

mkdir -p "$caches"
exec 9>"$caches/kube.lock"
flock 9  # a second run waits for the first
if [[ -d $folder ]]; then echo "$folder"; exit; fi

say "building Kubernetes $(version_of k8s.io/kubernetes) into $folder: about twelve minutes on two cores, once"
while sleep 30; do say "still building, $SECONDS s"; done 9>&- &
trap 'kill $!' EXIT
building=$folder.building
rm -rf "$building"
mkdir -p "$building"
export CGO_ENABLED=0
export GOGC=off GOMEMLIMIT=2GiB  # compilers end before they need to collect: a quarter less CPU
go build -mod=readonly -trimpath -ldflags "$flags" -o "$building/kubetest" . >&2
go build -mod=readonly -trimpath -ldflags "$flags" -o "$building/helm" helm.sh/helm/v3/cmd/helm >&2
for name in etcd kube-apiserver kube-controller-manager kubectl; do ln -s kubetest "$building/$name"; done

module=$(cd / && go mod download -json "github.com/envoyproxy/gateway@v$envoy_gateway" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
mkdir "$building/crds"
find "$module/charts/gateway-helm/charts/crds/crds" -name '*.yaml' -exec cp {} "$building/crds" \;
chmod -R u+w "$building/crds"
mv "$building" "$folder"
say "built in $SECONDS s"
echo "$folder"
