def wall(limits, program):
    """Limits and the system-call filter (in hexadecimal) on this very process, before it sees anything foreign."""
    import resource
    for name, value in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    if program:
        import ctypes
        code = bytes.fromhex(program)
        class Filter(ctypes.Structure):
            _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
        libc = ctypes.CDLL(None, use_errno=True)
        loaded = Filter(len(code) // 8, code)
        number = ctypes.c_ulong
        if (libc.prctl(38, number(1), number(0), number(0), number(0)) != 0
                or libc.prctl(22, number(2), ctypes.byref(loaded), number(0), number(0)) != 0):
            raise OSError(ctypes.get_errno(), "no system-call filter on this kernel")


