package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The image's user, and what belongs to it.
const imageUser = 65532

// images makes one archive for each platform, which docker, podman, ctr and
// kind load, and one of all, from which skopeo or crane fills a registry.
// They are OCI image layouts (https://github.com/opencontainers/image-spec),
// with the manifest.json of docker save besides in those of one platform.
func (r *release) images() error {
	linux := r.of("linux")
	if len(linux) == 0 {
		return nil
	}
	var all []image
	for _, p := range linux {
		img, err := r.image(p)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		all = append(all, img)
		if err := r.writeLayout("keyfob_"+r.version+"_image_"+p.arch+".tar", []image{img}); err != nil {
			return err
		}
	}
	if len(all) < 2 {
		return nil
	}
	return r.writeLayout("keyfob_"+r.version+"_image.tar", all)
}

// image is one platform's manifest, configuration and single layer.
type image struct {
	arch                    string
	manifest, config, layer []byte
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *imagePlatform    `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type imagePlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func describe(mediaType string, b []byte) descriptor {
	return descriptor{MediaType: mediaType, Digest: "sha256:" + digest(b), Size: len(b)}
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

// image makes the image of one platform.
func (r *release) image(p platform) (image, error) {
	entries, err := r.imageEntries(p)
	if err != nil {
		return image{}, err
	}
	plain, err := tarred(entries, r.date)
	if err != nil {
		return image{}, err
	}
	img := image{arch: p.arch}
	if img.layer, err = compressed(plain); err != nil {
		return image{}, err
	}
	how, err := readContainerfile(filepath.Join(r.source, "packaging", "container", "Containerfile"))
	if err != nil {
		return image{}, err
	}
	how.Labels = map[string]string{
		"org.opencontainers.image.title":    "keyfob",
		"org.opencontainers.image.version":  r.version,
		"org.opencontainers.image.revision": r.commit,
		"org.opencontainers.image.created":  r.date.Format(time.RFC3339),
		"org.opencontainers.image.url":      r.conf["HOMEPAGE"],
		"org.opencontainers.image.licenses": r.conf["LICENSE"],
	}
	img.config, err = json.Marshal(map[string]any{
		"created": r.date.Format(time.RFC3339), "architecture": p.arch, "os": "linux", "config": how,
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + digest(plain)}},
		"history": []map[string]any{{"created": r.date.Format(time.RFC3339), "created_by": "packaging/build.sh"}},
	})
	if err != nil {
		return image{}, err
	}
	img.manifest, err = json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType,
		"config": describe(configType, img.config), "layers": []descriptor{describe(layerType, img.layer)},
	})
	return img, err
}

// imageEntries is the image's file system: the programs, the authorities
// that TLS trusts, the files of packaging/container/rootfs, and nothing else.
func (r *release) imageEntries(p platform) ([]entry, error) {
	entries := []entry{
		{name: "grants/", mode: 0o700, uid: imageUser}, // for tokens: a volume takes over its owner
		{name: "tmp/", mode: 0o1777},
		{name: "var/lib/keyfob/", mode: 0o700, uid: imageUser},
		{name: "etc/ssl/certs/ca-certificates.crt", mode: 0o644, content: authorities()},
	}
	for _, name := range []string{"keyfob", "keyfobd", "keyfob-keyring"} { // a person's dialogs are not in here
		b, err := os.ReadFile(r.program(p, name))
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name: "usr/bin/" + name, mode: 0o755, content: b})
	}
	for name, file := range map[string]string{"THIRD-PARTY-NOTICES.txt": filepath.Join(r.stage, "THIRD-PARTY-NOTICES.txt"), "LICENSE": filepath.Join(r.source, "LICENSE")} {
		b, err := os.ReadFile(file)
		if os.IsNotExist(err) && name == "LICENSE" {
			continue
		}
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{name: "usr/share/doc/keyfob/" + name, mode: 0o644, content: b})
	}
	root := filepath.Join(r.source, "packaging", "container", "rootfs")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		entries = append(entries, entry{name: filepath.ToSlash(name), mode: 0o644, content: b})
		return err
	})
	return entries, err
}

// authorities are Mozilla's, less those that are trusted for some names only:
// a file of certificates can't say that.
func authorities() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // a Buffer takes everything
		}
	}
	return b.Bytes()
}

// imageConfig is how the image is run.
type imageConfig struct {
	User       string              `json:"User"`
	Env        []string            `json:"Env"`
	Entrypoint []string            `json:"Entrypoint"`
	Cmd        []string            `json:"Cmd"`
	WorkingDir string              `json:"WorkingDir"`
	Volumes    map[string]struct{} `json:"Volumes,omitempty"`
	Labels     map[string]string   `json:"Labels"`
}

// readContainerfile takes what the last stage of the Containerfile says of
// running the image, so that both ways to build it agree.
func readContainerfile(path string) (imageConfig, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return imageConfig{}, err
	}
	var c imageConfig
	for i, line := range strings.Split(string(b), "\n") {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		err = nil
		switch word {
		case "FROM":
			c = imageConfig{Volumes: map[string]struct{}{}}
		case "USER":
			c.User = rest
		case "ENV":
			c.Env = append(c.Env, rest)
		case "WORKDIR":
			c.WorkingDir = rest
		case "ENTRYPOINT":
			err = json.Unmarshal([]byte(rest), &c.Entrypoint)
		case "CMD":
			err = json.Unmarshal([]byte(rest), &c.Cmd)
		case "VOLUME":
			c.Volumes[rest] = struct{}{}
		case "", "COPY", "ARG", "RUN":
		default:
			if !strings.HasPrefix(word, "#") {
				err = fmt.Errorf("%s is not understood here", word)
			}
		}
		if err != nil {
			return imageConfig{}, fmt.Errorf("%s:%d: %w", path, i+1, err)
		}
	}
	if c.User == "" || len(c.Entrypoint) == 0 {
		return imageConfig{}, fmt.Errorf("%s: its last stage has no USER or no ENTRYPOINT", path)
	}
	return c, nil
}

// writeLayout writes an image layout as a tar archive.
func (r *release) writeLayout(name string, images []image) error {
	entries := []entry{{name: "oci-layout", mode: 0o644, content: []byte(`{"imageLayoutVersion":"1.0.0"}`)}}
	blob := func(b []byte) string {
		name := "blobs/sha256/" + digest(b)
		entries = append(entries, entry{name: name, mode: 0o644, content: b})
		return name
	}
	var manifests []descriptor
	for _, img := range images {
		d := describe(manifestType, img.manifest)
		d.Platform = &imagePlatform{Architecture: img.arch, OS: "linux"}
		manifests = append(manifests, d)
		blob(img.manifest)
		config, layer := blob(img.config), blob(img.layer)
		if len(images) > 1 {
			continue
		}
		saved, err := json.Marshal([]map[string]any{{"Config": config, "RepoTags": []string{"keyfob:" + r.version}, "Layers": []string{layer}}})
		if err != nil {
			return err
		}
		entries = append(entries, entry{name: "manifest.json", mode: 0o644, content: saved})
	}
	index := func(list []descriptor) ([]byte, error) {
		return json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": list})
	}
	if len(images) > 1 { // one image of several platforms
		b, err := index(manifests)
		if err != nil {
			return err
		}
		blob(b)
		manifests = []descriptor{describe(indexType, b)}
	}
	// Both names: the tag alone is the specification's, containerd wants the whole.
	manifests[0].Annotations = map[string]string{"org.opencontainers.image.ref.name": r.version, "io.containerd.image.name": "localhost/keyfob:" + r.version}
	b, err := index(manifests)
	if err != nil {
		return err
	}
	entries = append(entries, entry{name: "index.json", mode: 0o644, content: b})
	if b, err = tarred(entries, r.date); err != nil {
		return err
	}
	return r.write(name, b)
}
