"""The compiled time loop: programs as vector code for this machine's processor, by way of LLVM."""
