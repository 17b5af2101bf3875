"""The assembly of a processor that LLVM makes of a text, for tests of which instructions it takes."""

from throughtime.scanning.cpu.target import _llvm, machine


def assembly(text, target, *options):
    """options: as `machine` takes them."""
    generator = machine(target, *options)
    module = _llvm().parse_assembly(text)
    module.triple, module.data_layout = target.triple, str(generator.target_data)
    return str(generator.emit_assembly(module))
