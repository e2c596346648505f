#!/usr/bin/python3
"""Runs the recipes of compose/ with podman, against a fake AWS.

    prove.py IMAGE.tar DIRECTORY-OF-PROGRAMS

IMAGE.tar is keyfob's image for this machine, as packaging/build.sh makes it;
the directory holds keyfob, keyfobd, keyfob-keyring and fakeaws. Needs root,
podman with crun and netavark, socat, curl, and a python3 in /usr with yaml and
boto3; says which is missing, and exits with 77. Everything happens in a
network, mount and pid namespace of its own, and nothing stays: not on this
machine's networks, and not in podman's storage.

Each service is run by `podman run` with what its compose file says. What the
recipes take from a registry is replaced by this machine's /usr.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WORLD = "10.99.0.1:8099"  # of the fake AWS, reached from every container
CLIENT = """
import os, botocore, boto3
# botocore before 1.31 knows the token by the variable alone, and no AWS_ENDPOINT_URL.
if tuple(map(int, botocore.__version__.split(".")[:2])) < (1, 31):
    os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = open(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read()
print(boto3.client("sts", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).get_caller_identity()["Arn"])
"""
# crun wants cgroup v2, and no more than the limits that are there.
CONF = """[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""

failed = []


def check(what, ok, said=""):
    print(f"{'ok  ' if ok else 'FAIL'} {what}" + ("" if ok else f": {said.strip()[-600:]}"), flush=True)
    if not ok:
        failed.append(what)


def run(*argv, **how):
    """Runs a command; its exit code, and what it printed."""
    p = subprocess.run(argv, capture_output=True, text=True, timeout=how.pop("timeout", 40), **how)
    return p.returncode, p.stdout + p.stderr


def must(*argv, **how):
    code, said = run(*argv, **how)
    if code != 0:
        sys.exit(f"prove: {' '.join(argv)}: {said}")
    return said


class Compose:
    """One compose file, whose services are run with podman."""

    def __init__(self, file, project, variables):
        import yaml

        text = open(file).read()
        for name, value in variables.items():
            text = text.replace("${%s}" % name, value).replace("${%s:-1000}" % name, value)
        self.all, self.project, self.base = yaml.safe_load(text), project, os.path.dirname(file)
        self.started = []
        must("podman", "network", "create", f"{project}-default")
        for name, net in (self.all.get("networks") or {}).items():
            internal = ["--internal"] if net.get("internal") else []
            must("podman", "network", "create", *internal, "--subnet=" + net["ipam"]["config"][0]["subnet"], f"{project}-{name}")

    def argv(self, name, extra, command):
        s = self.all["services"][name]
        a = ["podman", "run", "--pull=never", f"--name={self.project}-{name}"]
        a += ["--read-only"] if s.get("read_only") else []
        a += [f"--cap-drop={x}" for x in s.get("cap_drop", [])]
        a += ["--security-opt=" + x.removesuffix(":true") for x in s.get("security_opt", [])]
        a += [f"--sysctl={k}={v}" for k, v in s.get("sysctls", {}).items()]
        a += [f"--env={k}={v}" for k, v in s.get("environment", {}).items()]
        a += [f"--user={s['user']}"] if "user" in s else []
        a += [f"--hostname={s['hostname']}"] if "hostname" in s else []
        if "network_mode" in s:
            a.append(f"--network=container:{self.project}-{s['network_mode'].removeprefix('service:')}")
        else:
            for net, how in (s.get("networks") or {"default": {}}).items():
                options = [f"ip={how['ipv4_address']}"] if "ipv4_address" in how else []
                options += [f"alias={x}" for x in how.get("aliases", [])]
                a.append(f"--network={self.project}-{net}" + (":" + ",".join(options) if options else ""))
        for v in s.get("volumes", []):
            source, rest = v.split(":", 1)
            source = os.path.normpath(os.path.join(self.base, source)) if source[0] in "./" else f"{self.project}-{source}"
            a.append(f"--volume={source}:{rest}")
        a += extra
        image = s["image"]
        if not image.startswith("localhost/"):  # this machine's programs in place of the registry's
            a.append("--volume=/usr:/usr:ro")
            if command is None:
                command = ["/usr/bin/socat"] + s["command"]
            image = "localhost/client"
        return a + [image] + (command if command is not None else s.get("command", []))

    def up(self, name, *extra):
        self.started.insert(0, name)
        must(*self.argv(name, ["--detach", *extra], None))

    def once(self, name, command, *extra):
        return run(*self.argv(name, ["--rm", *extra], command))

    def exec(self, name, *command, **how):
        return run("podman", "exec", "--interactive", f"{self.project}-{name}", *command, **how)

    def down(self):
        for name in self.started:
            run("podman", "rm", "--force", "--time=2", f"{self.project}-{name}")


def client(compose, service, *extra):
    """boto3 in a service's place: what AWS says who it is, or the error's last line."""
    code, said = compose.once(service, ["/usr/bin/python3", "-c", CLIENT], f"--env=AWS_ENDPOINT_URL=http://{WORLD}", "--env=HOME=/tmp", *extra)
    return said


def passphrase(recipe):
    path = os.path.join(recipe, "passphrase")
    with open(path, "w") as f:
        f.write("a long passphrase\n")
    os.chown(path, 65532, 65532)
    os.chmod(path, 0o400)


def is_up(compose):
    """Waits for keyfob in its container; what it says."""
    for _ in range(50):
        code, said = compose.exec("keyfob", "keyfob", "status")
        if code == 0 and ", unlocked" in said:
            return True, said
        time.sleep(0.1)
    return False, said + run("podman", "logs", f"{compose.project}-keyfob")[1]


def fill(compose, keys, *grants):
    """Puts the keys into the vault of a recipe's keyfob, and makes grants."""
    up, said = is_up(compose)
    check("keyfob is up", up, said)
    code, said = compose.exec("keyfob", "keyfob", "add", "base", input=keys)
    check("keys are added", code == 0 and "unchecked" not in said, said)
    for g in grants:
        code, said = compose.exec("keyfob", "keyfob", "grant", "add", g, "--any-user", "--token-file", f"/grants/{g}.token")
        check(f"a grant for {g}", code == 0, said)


def image():
    print("# the image", flush=True)
    for program in ("/bin/sh", "/bin/busybox", "/usr/bin/keyfob-signin", "/usr/bin/fakeaws"):
        code, said = run("podman", "run", "--rm", "--network=none", "--entrypoint", program, "localhost/keyfob", "version")
        check(f"no {program}", code == 127 and "no such file" in said.lower(), said)
    code, said = run("podman", "image", "inspect", "--format", "{{.User}} {{.Config.Entrypoint}}", "localhost/keyfob")
    check("not root", said.strip() == "65532:65532 [/usr/bin/keyfobd]", said)
    # A volume that belongs to root and is open to the group, as in Kubernetes.
    volume = tempfile.mkdtemp(dir=os.environ["TMPDIR"])
    os.chown(volume, 0, 65532)
    os.chmod(volume, 0o2777)
    must("podman", "run", "--detach", "--name=image-keyfob", "--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges",
         "--env=KEYFOB_PASSPHRASE=canary", f"--volume={volume}:/var/lib/keyfob", "localhost/keyfob")
    for _ in range(50):
        code, said = run("podman", "exec", "image-keyfob", "keyfob", "status")
        if code == 0 and ", unlocked" in said:
            break
        time.sleep(0.1)
    check("it runs read-only, without capabilities, on another's volume", code == 0 and "unlocked" in said, said + run("podman", "logs", "image-keyfob")[1])
    run("podman", "rm", "--force", "--time=2", "image-keyfob")


def ecs_like(recipes, keys):
    print("# ecs-like.yml", flush=True)
    passphrase(f"{recipes}/ecs-like")
    c = Compose(f"{recipes}/ecs-like.yml", "ecs", {})
    c.up("keyfob", f"--env=AWS_ENDPOINT_URL=http://{WORLD}")
    fill(c, keys, "app", "other")
    said = client(c, "app")
    check("boto3 in another container has its role", ":assumed-role/app/" in said, said)
    said = client(c, "app", "--env=AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.2/v1/credentials/other")
    check("and no role of another grant", "403" in said, said)
    said = client(c, "app", "--env=AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/dev/null")
    check("and nothing without the token", "401" in said, said)
    # The same recipe without its one dangerous line.
    c.down()
    config = f"{recipes}/ecs-like/config.toml"
    text = open(config).read()
    open(config, "w").write(text.replace("allow_unidentified = true", "allow_unidentified = false"))
    c.up("keyfob", f"--env=AWS_ENDPOINT_URL=http://{WORLD}")
    is_up(c)
    said = client(c, "app")
    check("without allow_unidentified the token alone opens nothing", "403" in said, said)
    c.down()


def https(recipes, keys):
    print("# https.yml", flush=True)
    tls = f"{recipes}/https/tls"
    os.mkdir(tls)
    os.chown(tls, 65532, 65532)
    must("podman", "run", "--rm", "--network=none", f"--volume={tls}:/tls", "localhost/keyfob", "make-certificate", "/tls", "keyfob.internal")
    passphrase(f"{recipes}/https")
    c = Compose(f"{recipes}/https.yml", "https", {})
    c.up("keyfob", f"--env=AWS_ENDPOINT_URL=http://{WORLD}")
    fill(c, keys, "app")
    address = must("podman", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "https-keyfob").strip()
    # curl 8.3 puts the token into the header by itself; Debian 12's does not.
    fetch = ['/usr/bin/curl -sS -m 20 -w "\\n%{http_code}" --cacert "$1" -H "Authorization: $(cat /grants/app.token)" https://keyfob.internal/v1/credentials/app']
    host = f"--add-host=keyfob.internal:{address}"
    code, said = c.once("app", ["/usr/bin/sh", "-c", *fetch, "sh", "/tls/ca.pem"], host)
    check("a container on the bridge has its role over TLS", said.endswith("200") and ":role/app\"" in said, "no credentials")
    code, said = c.once("app", ["/usr/bin/sh", "-c", *fetch, "sh", "/usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt"], host)
    check("whose authority is the recipe's own", code == 60 and "SecretAccessKey" not in said, said)
    code, said = c.once("app", ["/usr/bin/sh", "-c", fetch[0].replace("https:", "http:").replace("internal/", "internal:443/"), "sh", "/tls/ca.pem"], host)
    check("and nothing over plain http", said.endswith("400") and "speaks https" in said, said)
    code, said = c.once("app", ["/usr/bin/sh", "-c", fetch[0].replace("keyfob.internal", address).replace("--cacert", "--insecure --cacert"), "sh", "/tls/ca.pem"])
    check("nor by the address, which the certificate is not for", said.endswith("403"), said)
    code, said = c.once("app", ["/usr/bin/sh", "-c", fetch[0].replace("/grants/app.token", "/dev/null"), "sh", "/tls/ca.pem"], host)
    check("nor without the token", said.endswith("401"), said)
    # A renewed certificate, while keyfob runs.
    must("podman", "run", "--rm", "--network=none", f"--volume={tls}:/tls", "localhost/keyfob", "make-certificate", "--force", "/tls", "keyfob.internal")
    for _ in range(70):
        code, said = c.once("app", ["/usr/bin/sh", "-c", *fetch, "sh", "/tls/ca.pem"], host)
        if code == 0:
            break
        time.sleep(1)
    check("a renewed certificate is taken up", said.endswith("200"), said[-200:])
    c.down()


def devcontainer(recipes, keys, bin):
    print("# devcontainer.yml", flush=True)
    uid, home = 61234, tempfile.mkdtemp(dir=os.environ["TMPDIR"])
    os.makedirs(f"{home}/.config/keyfob/containers", mode=0o700)
    os.makedirs(f"{home}/.aws")
    os.makedirs(f"{home}/run/keyfob-containers", mode=0o700)
    shutil.copy(f"{recipes}/ecs-like/aws-config", f"{home}/.aws/config")
    with open(f"{home}/.aws/config", "a") as f:
        f.write("[profile dev]\nregion = eu-central-1\nrole_arn = arn:aws:iam::222222222222:role/app\nsource_profile = base\n")
    with open(f"{home}/.config/keyfob/config.toml", "w") as f:
        f.write('[[endpoint]]\nkind = "container"\nlisten = "127.0.0.1:9912"\n')
    must("chown", "-R", f"{uid}:{uid}", home)
    person = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "env", "-i", f"HOME={home}", f"XDG_RUNTIME_DIR={home}/run", f"PATH={bin}:/usr/bin:/bin",
              "DBUS_SESSION_BUS_ADDRESS=unix:path=/dev/null", f"AWS_ENDPOINT_URL=http://{WORLD}", "KEYFOB_KEYSTORE=passphrase", "KEYFOB_PASSPHRASE=canary"]
    relay = None
    try:
        code, said = run(*person, "keyfob", "add", "base", input=keys)
        check("keys are added", code == 0, said)
        token = f"{home}/.config/keyfob/containers/dev.token"
        code, said = run(*person, "keyfob", "grant", "add", "dev", "--token-file", token)
        check("a grant for dev", code == 0, said)
        # As a person without systemd does it.
        relay = subprocess.Popen([*person, "socat", f"UNIX-LISTEN:{home}/run/keyfob-containers/http.sock,fork,mode=600", "TCP:127.0.0.1:9912"])
        c = Compose(f"{recipes}/devcontainer.yml", "dev", {"HOME": home, "XDG_RUNTIME_DIR": f"{home}/run", "UID": str(uid)})
        # The container that the person works in stays; programs are run in it.
        c.started.append("dev")
        must(*c.argv("dev", ["--detach", f"--env=AWS_ENDPOINT_URL=http://{WORLD}", "--env=HOME=/tmp"], ["/usr/bin/sleep", "60"]))
        c.up("keyfob-relay")
        time.sleep(0.3)
        code, said = c.exec("dev", "/usr/bin/python3", "-c", CLIENT)
        check("boto3 in the container has the role of the host's keyfob", ":assumed-role/app/" in said, said)
        code, said = run("podman", "exec", "--env=AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/dev/null", "dev-dev", "/usr/bin/python3", "-c", CLIENT)
        check("and nothing without the token", "401" in said, said)
        # The control socket in a container, by the same person's number.
        code, said = run("podman", "run", "--rm", "--network=none", f"--user={uid}:{uid}", f"--volume={home}/run/keyfob:/s", "--env=KEYFOB_SOCKET=/s/keyfob.sock",
                         "--entrypoint=/usr/bin/keyfob", "localhost/keyfob", "status")
        check("the control socket refuses a container", code == 4 and "denied" in said, f"exit {code} {said}")
        c.down()
    finally:
        if relay:
            relay.terminate()
            relay.wait()
        run(*person, "keyfob", "stop")


def inside(tar, bin):
    with open("/tmp/keyfob-containers.conf", "w") as f:
        f.write(CONF)
    os.environ["CONTAINERS_CONF"] = "/tmp/keyfob-containers.conf"
    # Storage and networks of its own, in this namespace's /var/lib/containers.
    for name in ("AWS_CA_BUNDLE", "AWS_PROFILE"):
        os.environ.pop(name, None)
    os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="keyfob-recipes-")
    os.chmod(os.environ["TMPDIR"], 0o755)
    recipes = os.path.join(os.environ["TMPDIR"], "compose")
    shutil.copytree(os.path.join(HERE, "compose"), recipes)
    for d in "usr", "etc/ssl/certs", "tmp", "proc", "dev", "sys", "run", "grants", "tls":
        os.makedirs(f"{recipes}/client/root/{d}")
    open(f"{recipes}/client/root/etc/ssl/certs/ca-certificates.crt", "w").close()
    for d in "bin", "sbin", "lib", "lib64":
        os.symlink(f"usr/{d}", f"{recipes}/client/root/{d}")
    with open(f"{recipes}/client/Containerfile", "w") as f:
        f.write("FROM scratch\nCOPY root/ /\n")
    must("podman", "build", "--quiet", "--tag=localhost/client", f"{recipes}/client")
    loaded = next(line for line in must("podman", "load", "--input", tar).splitlines() if line.startswith("Loaded image"))
    must("podman", "tag", loaded.split(": ")[1], "localhost/keyfob:latest")
    with open(f"{recipes}/world.json", "w") as f:
        json.dump({"users": [{"name": "alice"}], "roles": [{"arn": f"arn:aws:iam::222222222222:role/{r}", "trust": [{"principals": ["111122223333"]}]} for r in ("app", "other")]}, f)
    with open(f"{recipes}/ecs-like/aws-config", "a") as f:
        f.write("[profile other]\nregion = eu-central-1\nrole_arn = arn:aws:iam::222222222222:role/other\nsource_profile = base\n")
    fake = subprocess.Popen([f"{bin}/fakeaws", "--state", f"{recipes}/world.json", "--listen", WORLD], stdout=subprocess.PIPE, text=True)
    try:
        user = json.loads(fake.stdout.readline())["users"][0]
        keys = json.dumps({"AccessKeyId": user["access_key_id"], "SecretAccessKey": user["secret_access_key"]})
        image()
        ecs_like(recipes, keys)
        https(recipes, keys)
        devcontainer(recipes, keys, bin)
    finally:
        fake.terminate()
        fake.wait()
        shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True)
    sys.exit(1 if failed else 0)


def skip(why):
    print(f"skip the container recipes: {why}")
    sys.exit(77)


def main():
    if len(sys.argv) == 4 and sys.argv[3] == "inside":
        inside(sys.argv[1], sys.argv[2])
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    if os.geteuid() != 0:
        skip("not root")
    for tool in ("podman", "crun", "socat", "curl", "ip", "unshare", "setpriv"):
        if not shutil.which(tool):
            skip(f"{tool} is not installed")
    if run("/usr/bin/python3", "-c", "import boto3, yaml")[0] != 0:
        skip("/usr/bin/python3 has no boto3 or no yaml")
    script = """
set -e
umount -lR /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup
for d in /tmp /run /var/lib/containers /etc/containers/networks; do mkdir -p $d; mount -t tmpfs -o mode=1777 tmpfs $d; done
ip link set lo up
ip addr add 10.99.0.1/32 dev lo
exec /usr/bin/python3 "$@" inside
"""
    image, bin = map(os.path.abspath, sys.argv[1:])
    # /tmp becomes another one: what is named there is carried along.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as carried:
        os.chmod(carried, 0o755)
        shutil.copytree(HERE, f"{carried}/container")
        shutil.copy(image, f"{carried}/image.tar")
        shutil.copytree(bin, f"{carried}/bin")
        p = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--propagation=private", "sh", "-c", script, "prove",
                            f"{carried}/container/prove.py", f"{carried}/image.tar", f"{carried}/bin"])
    sys.exit(p.returncode)


main()
