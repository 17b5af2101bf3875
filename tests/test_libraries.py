"""Compiled code as it is loaded into this process."""

import ctypes
import gc
import subprocess
import sys

import pytest

from throughtime.scanning.cpu.target import Library, compile_object, host

# a process that holds some GB, with room for code above them and for what that reads below: farther apart than code reaches
FAR_APART = """
import ctypes, mmap
from throughtime.scanning.cpu.target import Library, compile_object, host, machine
numbers = 1 << 20
array = f"<{{ float, [{numbers} x float] }}>"
text = f'''
@table = private constant {array} <{{ float 3.0, [{numbers} x float] zeroinitializer }}>
define void @read(ptr %p) {{
  %i = load i64, ptr %p
  %q = getelementptr float, ptr @table, i64 %i
  %v = load float, ptr %q
  store float %v, ptr %p
  ret void
}}
'''
code = compile_object(text, host(), machine(host(), "small"))

def room(size, **how):
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | how.pop("more", 0), **how)

above = room(1 << 20)
filled = [room(4 << 20) for _ in range(64)]
gigabytes = room(4 << 30, more=0x4000, prot=mmap.PROT_READ)  # without memory, MAP_NORESERVE
above.close()
library, value = Library(code), (ctypes.c_int64 * 1)(0)
library.function("read")(ctypes.addressof(value))
print(ctypes.c_float.from_buffer(value).value)
"""


def adding(number):
    return f"""
define void @{number}(ptr %p) {{
  %v = load i64, ptr %p
  %w = add i64 %v, {number[1:]}
  store i64 %w, ptr %p
  ret void
}}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is laid out as Linux does it")
def test_code_reaches_its_numbers_in_a_process_of_some_gigabytes():
    done = subprocess.run([sys.executable, "-c", FAR_APART], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "3.0\n"), done.stderr[-500:]


def test_functions_stay_as_long_as_their_library_whatever_else_is_let_go_of():
    one, value = Library(compile_object(adding("f1") + adding("f20"), host())), (ctypes.c_int64 * 1)(0)
    functions, same = [one.function("f1"), one.function("f20")], compile_object(adding("f1"), host())
    for number in range(4):
        other = Library(same)
        other.address("f1")
        del other
        gc.collect()
        for function in functions:
            function(ctypes.addressof(value))
        assert value[0] == 21 * (number + 1)


def test_a_function_that_is_not_there_is_named():
    with pytest.raises(RuntimeError, match="f2"):
        Library(compile_object(adding("f1"), host())).address("f2")
