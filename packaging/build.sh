#!/usr/bin/env bash
# Builds a release of keyfob: programs for linux, darwin and windows on amd64
# and arm64, archives, deb, rpm, apk and Arch packages, container images,
# manifests for Homebrew, Scoop, WinGet and Nix, a list of materials (SBOM) and
# checksums. The same commit and the same Go give the same bytes.
#
#   packaging/build.sh [--version V] [--out DIR] [--platform OS/ARCH]… [--native]
#                      [--release] [--sign-key FILE] [--check] [--keep DIR]
#
# --version V    instead of the one that the git tag says
# --out DIR      default dist/; it must not exist, or be empty
# --platform P   this one only; may be repeated
# --native       keyfob-keyring for this machine's system with cgo: on a Mac,
#                the keychain
# --release      refuses what a release must not be: changes that are not
#                committed, no tag, no manual pages, names of packaging/release.conf
#                that nobody filled in
# --sign-key F   a key of ssh-keygen, or its .pub when ssh-agent holds it:
#                SHA256SUMS.sig. Also KEYFOB_SIGN_KEY. Without: unsigned.
# --check        builds all twice, the second time with an empty build cache
#                (some minutes a platform), compares, and runs lintian over the
#                .deb where both are there
# --keep DIR     leaves there what was built, before it was packed
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)

die() { echo "packaging: cannot $1" >&2; [ $# -lt 2 ] || echo "hint: $2" >&2; exit 1; }
say() { echo "packaging: $*" >&2; }

version='' out=$source/dist platforms=() native='' release='' check='' keep='' key=${KEYFOB_SIGN_KEY:-}
while [ $# -gt 0 ]; do
  case $1 in
    --version | --out | --platform | --sign-key | --keep)
      [ $# -ge 2 ] || die "understand the command: $1 needs a value"
      case $1 in --version) version=${2#v} ;; --out) out=$2 ;; --platform) platforms+=("$2") ;; --sign-key) key=$2 ;; --keep) keep=$2 ;; esac
      shift ;;
    --native) native=1 ;;
    --release) release=1 ;;
    --check) check=1 ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 0 ;;
    *) echo "packaging: cannot understand $1" >&2; exit 2 ;;
  esac
  shift
done
[ ${#platforms[@]} -gt 0 ] || platforms=(linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64)

mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -z "$(ls -A "$out")" ] || die "build into $out: it is not empty" "rm -r $out, or --out"

# What the builder's environment says must not show in the result.
export LC_ALL=C TZ=UTC GOFLAGS=-mod=readonly GOEXPERIMENT='' GOAMD64=v1 GOARM64=v8.0 GOWORK=off
unset GOOS GOARCH CGO_ENABLED
umask 022

# Which version, commit and time this is.
commit='' vcs=-buildvcs=false
if git -C "$source" rev-parse HEAD >/dev/null 2>&1; then
  commit=$(git -C "$source" rev-parse HEAD) vcs=-buildvcs=true
  SOURCE_DATE_EPOCH=$(git -C "$source" log -1 --format=%ct)
  changed=$(git -C "$source" status --porcelain)
  tag=$(git -C "$source" describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null || true)
  if [ -z "$version" ] && [ -n "$tag" ] && [ -z "$changed" ]; then
    version=${tag#v}
  elif [ -z "$version" ]; then # so many commits before the next version
    last=$(git -C "$source" describe --tags --abbrev=0 --match 'v[0-9]*.[0-9]*.[0-9]*' 2>/dev/null || true)
    n=$(git -C "$source" rev-list --count "${last:+$last..}HEAD")
    IFS=. read -r major minor patch <<<"${last#v}"
    version=${major:-0}.${minor:-0}.$((${patch%%[!0-9]*} + 1))-pre$n
  fi
  if [ -n "$changed" ]; then
    [ -z "$release" ] || die "make a release: there are changes that are not committed" "git status"
    say "there are changes that are not committed: the programs say so, and the source archive does not have them"
  fi
  [ -z "$release" ] || [ "v$version" = "$tag" ] || die "make a release: this commit has no tag${tag:+ of that version, but $tag}" "git tag -s v1.2.3"
elif [ -n "$release" ]; then
  die "make a release: $source is no git repository"
fi
[ -n "$version" ] || die "tell the version: there is no git repository" "--version 1.2.3, and SOURCE_DATE_EPOCH"
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z]+)?$ ]] || die "use the version $version: it is not 1.2.3 or 1.2.3-pre4"
: "${SOURCE_DATE_EPOCH:?packaging: cannot tell the time of the source: set SOURCE_DATE_EPOCH}"
export SOURCE_DATE_EPOCH
if [ -n "$release" ] && grep -q '\.invalid' "$source/packaging/release.conf"; then
  die "make a release: packaging/release.conf is not filled in"
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/keyfob-build.XXXXXX")
trap 'rm -rf "$work"' EXIT

# build OUT: everything, into OUT.
build() {
  local out=$1 stage p goos arch program cgo suffix
  stage=$(mktemp -d "$work/stage.XXXXXX")
  mkdir -p "$out" "$stage/man" "$stage/completions"
  for p in "${platforms[@]}"; do
    goos=${p%/*} arch=${p#*/}
    say "building for $p"
    mkdir -p "$stage/bin/$goos-$arch"
    suffix=''
    [ "$goos" != windows ] || suffix=.exe
    for program in keyfob keyfobd keyfob-keyring keyfob-signin; do
      cgo=0
      if [ -n "$native" ] && [ "$program" = keyfob-keyring ] && [ "$p" = "$(go env GOHOSTOS)/$(go env GOHOSTARCH)" ]; then cgo=1; fi
      (cd "$source" && GOOS=$goos GOARCH=$arch CGO_ENABLED=$cgo go build -trimpath "$vcs" \
        -ldflags "-s -w -buildid= -X main.version=$version -X keyfob/internal/hot/early.Version=$version" \
        -o "$stage/bin/$goos-$arch/$program$suffix" "./cmd/$program") ||
        die "build $program for $p"
    done
  done
  texts "$stage"
  scripts "$stage"
  go build -C "$source/packaging/tools" -trimpath -buildvcs=false -o "$stage/tools" .
  "$stage/tools" -source "$source" -stage "$stage" -out "$out" -version "$version" -commit "$commit" \
    -epoch "$SOURCE_DATE_EPOCH" -conf "$source/packaging/release.conf"
  if [ -n "$keep" ]; then
    mkdir -p "$keep"
    mv "$stage"/* "$keep/"
    printf '%s\n' -version "$version" -commit "$commit" -epoch "$SOURCE_DATE_EPOCH" >"$keep/arguments"
  fi
  rm -rf "$stage"
}

# texts STAGE: completions, as the program prints them, and manual pages.
texts() {
  local stage=$1
  (cd "$source" && CGO_ENABLED=0 go build -trimpath "$vcs" -ldflags "-s -w -buildid= -X main.version=$version" -o "$stage/keyfob" ./cmd/keyfob)
  mkdir "$stage/home"
  ours() { env -i PATH="$PATH" HOME="$stage/home" XDG_RUNTIME_DIR="$stage/home" LC_ALL=C TZ=UTC SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" "$stage/keyfob" "$@"; }
  ours completion bash >"$stage/completions/keyfob.bash"
  ours completion zsh >"$stage/completions/_keyfob"
  ours completion fish >"$stage/completions/keyfob.fish"
  ours completion powershell >"$stage/completions/keyfob.ps1"
  # The commands' pages are in docs/, made of the command table and kept so by
  # a test; the helpers' are here.
  cp "$source"/packaging/man/* "$stage/man/"
  if ls "$source"/docs/man/keyfob.1 >/dev/null 2>&1; then
    cp "$source"/docs/man/* "$stage/man/"
  else
    [ -z "$release" ] || die "find the manual pages in docs/man"
    say "no manual pages: docs/man is not there"
  fi
}

# scripts STAGE: the packages' scripts, each with the functions that it uses.
scripts() {
  local stage=$1 s
  for s in "$source"/packaging/scripts/*/*; do
    s=${s#"$source/packaging/scripts/"}
    mkdir -p "$stage/scripts/${s%/*}"
    awk -v common="$source/packaging/scripts/common.sh" '
      function use(name,   line, on) {
        while ((getline line <common) > 0) {
          if (index(line, name "() {") == 1) on = found[name] = 1
          if (line == "") on = 0
          if (on) print line
        }
        close(common)
        if (!(name in found)) { print "packaging: there is no function " name >"/dev/stderr"; exit 1 }
      }
      /^#use / { for (i = 2; i <= NF; i++) use($i); next }
      { print }' "$source/packaging/scripts/$s" >"$stage/scripts/$s"
    chmod 755 "$stage/scripts/$s"
  done
}

# sign OUT: SHA256SUMS.sig, which everybody who has OpenSSH can verify.
sign() {
  local signer public=$work/key.pub
  if [ -z "$key" ]; then
    say "UNSIGNED: no key was given (--sign-key)"
    return
  fi
  signer=$(sed -n 's/^SIGNER="\(.*\)"$/\1/p' "$source/packaging/release.conf")
  case $key in *.pub) cp "$key" "$public" ;; *) ssh-keygen -y -f "$key" >"$public" || die "read the key $key" ;; esac
  printf '%s namespaces="keyfob-release" %s\n' "$signer" "$(cut -d' ' -f1,2 "$public")" >"$1/allowed_signers"
  ssh-keygen -q -Y sign -f "$key" -n keyfob-release "$1/SHA256SUMS" || die "sign with $key"
  ssh-keygen -q -Y verify -f "$1/allowed_signers" -I "$signer" -n keyfob-release -s "$1/SHA256SUMS.sig" <"$1/SHA256SUMS" >/dev/null ||
    die "verify what was signed with $key"
  say "signed with $(ssh-keygen -l -f "$public")"
}

say "keyfob $version${commit:+, commit ${commit:0:12}}, $(go env GOVERSION)"
build "$out"
sign "$out"
if [ -n "$check" ]; then
  say "building all of it once more"
  keep=''
  GOCACHE=$work/cache build "$work/again"
  GOCACHE=$work/cache go clean -cache
  rm -f "$work/again/SHA256SUMS.sig"
  (cd "$work/again" && sha256sum --quiet --check "$out/SHA256SUMS") || die "build the same bytes twice"
  cmp "$out/SHA256SUMS" "$work/again/SHA256SUMS" || die "build the same files twice"
  say "built twice to the same bytes"
  if command -v lintian >/dev/null && ls "$out"/*.deb >/dev/null 2>&1; then
    lintian --fail-on error,warning --allow-root "$out"/*.deb ||
      die "find the .deb clean by lintian"
    say "lintian has nothing to say"
  else
    say "skipped: lintian (not installed, or no .deb)"
  fi
fi
say "$(find "$out" -type f | wc -l | tr -d ' ') files in $out"
