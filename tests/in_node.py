"""Scripts run in Node beside an exported network."""

import json
import shutil
import subprocess

import pytest

NODE = shutil.which("node")


def in_node(folder, script, values=None):
    """What an ES script leaves in `out`, after `net` was loaded from an export. values: what it finds in `given`."""
    if NODE is None:
        pytest.skip("no node on the PATH")
    module = min(folder.glob("*.js")).as_uri()  # beside which one may lie that trains
    text = f"""
        import {{ load }} from {json.dumps(module)};
        import {{ readFileSync }} from "node:fs";
        const given = JSON.parse(readFileSync(0, "utf8")), net = await load();
        let out;
        const said = (call) => {{ try {{ call(); }} catch (error) {{ return String(error); }} }};
        const list = (values) => Array.from(values);
        {script}
        console.log(JSON.stringify(out));
    """
    done = subprocess.run(
        [NODE, "--input-type=module", "-e", text], input=json.dumps(values), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
