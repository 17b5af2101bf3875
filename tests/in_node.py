"""Networks to export, and scripts run in Node beside them."""

import json
import shutil
import subprocess

import pytest
import torch

NODE = shutil.which("node")


def randomised(module):
    """Every parameter random, so that none is a neutral 0 or 1."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.5)
    return module


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
