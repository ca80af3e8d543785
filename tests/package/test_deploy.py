#!/usr/bin/python3
"""tools/deploy: what the container and the cluster are told agrees with itself, with the tree and
with the programs. Neither is run here.

Ends with 77 where there is no yamllint.
"""
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import yaml  # what yamllint brings
except ImportError:
    print("there is no yamllint here (nor the YAML of Python, which comes with it)")
    sys.exit(77)

SOURCE = pathlib.Path(os.environ["MESHD_SOURCE"])
MESHD, MESHCAT = os.environ["MESHD"], os.environ["MESHCAT"]
DEPLOY = SOURCE / "tools" / "deploy"
LINT = "{extends: default, rules: {document-start: disable, line-length: {max: 120}, octal-values: disable}}"
SECRETS = "/run/secrets/meshd"
INSTRUCTIONS = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def run(*argv, check=True, env=None):
    done = subprocess.run([str(a) for a in argv], env=env, text=True, capture_output=True, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise AssertionError(f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def objects():
    """What is applied, by kind and name."""
    folder = DEPLOY / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in folder.iterdir()} == {*listed, "kustomization.yaml"}, "all files are listed"
    found = {}
    for name in listed:
        for one in yaml.safe_load_all((folder / name).read_text()):
            found[one["kind"], one["metadata"]["name"]] = one
    return found


class Kubernetes(unittest.TestCase):
    def setUp(self):
        self.objects = objects()
        self.set = self.objects["StatefulSet", "meshd"]["spec"]
        self.pod = self.set["template"]["spec"]
        self.container, = self.pod["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="meshd-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def environment(self, peer_id):
        """As the kubelet makes it of the container's env."""
        env = {}
        for entry in self.container["env"]:
            if "value" in entry:
                env[entry["name"]] = re.sub(r"\$\((\w+)\)", lambda m: env[m.group(1)], entry["value"])
            else:
                self.assertEqual(entry["valueFrom"], {"fieldRef": {"fieldPath": "metadata.name"}})
                env[entry["name"]] = peer_id
        return env

    def pods(self):
        return [f"meshd-{i}" for i in range(self.set["replicas"])]

    def print_config(self):
        path = self.dir / "meshd.yaml"
        path.write_text(self.objects["ConfigMap", "meshd"]["data"]["meshd.yaml"])
        printed = run(MESHD, "--print-config", "-c", path, env={**self.environment("meshd-0"), "PATH": os.environ["PATH"]})
        return yaml.safe_load(printed.stdout)

    def test_yamllint_finds_nothing(self):
        self.assertEqual(run("yamllint", "--strict", "-d", LINT, DEPLOY / "kubernetes").stdout, "")

    def test_each_node_takes_the_settings_with_the_certificates_that_the_comment_makes(self):
        run(MESHCAT, "ca", "init", "--dir", self.dir / "ca")
        run(MESHCAT, "ca", "issue", "--dir", self.dir / "ca", *self.pods())
        path = self.dir / "meshd.yaml"
        path.write_text(self.objects["ConfigMap", "meshd"]["data"]["meshd.yaml"])
        for pod in self.pods():
            env = {key: value.replace(SECRETS, str(self.dir / "ca")) for key, value in self.environment(pod).items()}
            done = run(MESHD, "--check", path, env={"PATH": os.environ["PATH"], **env})
            self.assertIn(f"the settings are valid: node {pod}\n", done.stdout)

    def test_the_nodes_dial_each_other_by_their_names(self):
        service = self.set["serviceName"]
        self.assertEqual(self.objects["Service", service]["spec"]["clusterIP"], "None")
        peers = {peer["address"] for peer in self.print_config()["peers"]}
        self.assertEqual(peers, {f"{pod}.{service}:{self.ports['mesh']}" for pod in self.pods()})

    def test_every_variable_and_argument_is_known(self):
        usage = run(MESHD, "--help").stdout
        known = set(re.findall(r"variable: ([A-Z_]+)", usage)) | {"RUNTIME_DIRECTORY"}
        self.assertLessEqual({entry["name"] for entry in self.container["env"]}, known)
        for argument in self.container["args"]:
            if argument.startswith("-"):
                self.assertIn(argument, usage)

    def test_the_image_is_of_this_version(self):
        version = run(MESHD, "--version").stdout.split()[1]
        self.assertEqual(self.container["image"], f"meshd:{version}")

    def test_ports_are_those_of_the_settings(self):
        config = self.print_config()
        self.assertEqual(config["bind"], f":{self.ports['mesh']}")
        self.assertTrue(config["ingress"][0]["listen"].endswith(f":{self.ports['ingress']}"))
        self.assertEqual(self.environment("meshd-0")["ADMIN_ADDR"], f":{self.ports['admin']}")
        self.assertEqual(self.set["template"]["metadata"]["annotations"]["prometheus.io/port"], str(self.ports["admin"]))
        for (kind, _), one in self.objects.items():
            for port in one["spec"]["ports"] if kind == "Service" else ():
                self.assertIn(port["targetPort"], self.ports)

    def test_probes_ask_the_admin_port(self):
        paths = {probe: self.container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
        self.assertEqual(paths, {"startupProbe": {"path": "/healthz", "port": "admin"},
                                 "livenessProbe": {"path": "/healthz", "port": "admin"},
                                 "readinessProbe": {"path": "/readyz", "port": "admin"}})

    def test_selectors_mounts_and_references_meet(self):
        labels = self.set["template"]["metadata"]["labels"]
        for (kind, name), one in self.objects.items():
            selector = one.get("spec", {}).get("selector")
            if selector:
                self.assertEqual(selector.get("matchLabels", selector), labels, (kind, name))
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in self.container["volumeMounts"]}
        self.assertEqual(set(volumes), set(mounts))
        self.assertIn(("ConfigMap", volumes["settings"]["configMap"]["name"]), self.objects)
        self.assertIn(f"secret generic {volumes['tls']['secret']['secretName']} ",
                      (DEPLOY / "kubernetes/kustomization.yaml").read_text())
        self.assertEqual(mounts["tls"], SECRETS)
        self.assertEqual(mounts["run"], self.environment("meshd-0")["RUNTIME_DIRECTORY"])
        self.assertIn(f"{mounts['settings']}/meshd.yaml", self.container["args"])

    def test_a_pod_may_little_and_ends_in_its_own_time(self):
        own, shared = self.container["securityContext"], self.pod["securityContext"]
        self.assertEqual(own, {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                               "capabilities": {"drop": ["ALL"]}})
        self.assertTrue(shared["runAsNonRoot"])
        self.assertEqual(shared["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertEqual({shared[key] for key in ("runAsUser", "runAsGroup", "fsGroup")}, {user_of_image()})
        self.assertFalse(self.pod["automountServiceAccountToken"])
        drain = self.print_config()["timing"]["drain_timeout"]
        self.assertGreaterEqual(self.pod["terminationGracePeriodSeconds"], int(drain.rstrip("s")) + 5)
        self.assertEqual(self.objects["PodDisruptionBudget", "meshd"]["spec"]["maxUnavailable"], 1)


def dockerfile():
    """(instruction, its text), with lines that go on joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line and not line.startswith("#")]


def user_of_image():
    return int([text for word, text in dockerfile() if word == "USER"][-1].split(":")[0])


class Container(unittest.TestCase):
    def all_of(self, instruction):
        return [text for word, text in dockerfile() if word == instruction]

    def test_instructions_and_stages_are_known(self):
        self.assertLessEqual({word for word, _ in dockerfile()}, INSTRUCTIONS)
        self.assertEqual(dockerfile()[0][0], "FROM")
        stages = {text.split(" AS ")[1] for text in self.all_of("FROM") if " AS " in text}
        self.assertEqual({text.split()[0] for text in self.all_of("FROM")}, {"debian:12-slim"})
        for text in self.all_of("COPY"):
            for stage in re.findall(r"--from=(\S+)", text):
                self.assertIn(stage, stages)

    def test_what_is_copied_is_there_and_not_left_out(self):
        kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
        copied = set()
        for text in self.all_of("COPY"):
            if "--from=" not in text:
                *paths, _ = text.split()
                copied |= set(paths)
                for path in paths:
                    self.assertTrue((SOURCE / path).exists(), path)
        self.assertEqual({path.split("/")[0] for path in copied}, kept)

    def test_all_that_the_build_wants_is_copied(self):
        kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
        read = set()
        for path in [SOURCE / "CMakeLists.txt", *(SOURCE / "cmake").iterdir(), *(SOURCE / "src").glob("*/CMakeLists.txt"),
                     SOURCE / "tools/CMakeLists.txt"]:
            read |= set(re.findall(r"CMAKE_SOURCE_DIR\}/([\w.]+)", path.read_text()))
        self.assertLessEqual(read - {"tests"}, kept)

    def test_it_is_no_root_and_starts_what_the_package_installs(self):
        self.assertRegex(self.all_of("USER")[-1], r"^[1-9]\d*:[1-9]\d*$")
        self.assertIn(f"--uid {user_of_image()} ", " ".join(self.all_of("RUN")))
        self.assertEqual(json.loads(self.all_of("ENTRYPOINT")[-1]), ["/usr/sbin/meshd"])
        flag, path = json.loads(self.all_of("CMD")[-1])
        self.assertIn(flag, run(MESHD, "--help").stdout)
        self.assertEqual(path, (SOURCE / "tools/debian/conffiles").read_text().strip())
        bind = re.search(r"--bind ADDR\n.*default: \S+:(\d+)", run(MESHD, "--help").stdout).group(1)
        self.assertEqual(self.all_of("EXPOSE"), [bind])

    def test_its_health_is_a_question_that_meshcat_takes(self):
        check = self.all_of("HEALTHCHECK")[-1]
        options, command = check.split(" CMD ", 1)
        self.assertLessEqual({word.split("=")[0] for word in options.split()}, {"--interval", "--timeout", "--start-period", "--retries"})
        program, *words = json.loads(command)
        self.assertEqual(program, "meshcat")
        run(MESHCAT, *words, "--help")

    def test_the_shell_takes_its_commands(self):
        for text in self.all_of("RUN"):
            run("sh", "-n", "-c", text)
            shlex.split(text)


if __name__ == "__main__":
    if not shutil.which("yamllint"):
        print("there is no yamllint here")
        sys.exit(77)
    unittest.main(verbosity=2)
