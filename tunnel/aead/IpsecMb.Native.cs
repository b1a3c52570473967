using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;
using unsafe GcmFunction = delegate* unmanaged[SuppressGCTransition]<
    byte*,
    byte*,
    byte*,
    byte*,
    ulong,
    byte*,
    byte*,
    ulong,
    byte*,
    ulong,
    void>;

namespace Lightway.Tunnel.Aead;

/// <summary>
/// Intel Multi-Buffer Crypto for IPsec, if this machine has it: the functions for AES-256-GCM that suit the processor.
/// The prototypes are those of the library's header intel-ipsec-mb.h, which uses no manager for them.
/// </summary>
internal sealed unsafe class IpsecMb
{
    private const string EnvironmentVariable = "LIGHTWAY_IPSEC_MB";

    private IpsecMb(string name, nint prepare, nint encrypt, nint decrypt)
    {
        Name = name;
        Prepare = (delegate* unmanaged[SuppressGCTransition]<byte*, byte*, void>)prepare;
        Encrypt = (GcmFunction)encrypt;
        Decrypt = (GcmFunction)decrypt;
    }

    /// <summary>The library's version, the instruction set, and the file.</summary>
    public string Name { get; }

    /// <summary>aes_gcm_pre_256: key (32 bytes), expanded key (struct gcm_key_data).</summary>
    public delegate* unmanaged[SuppressGCTransition]<byte*, byte*, void> Prepare { get; }

    /// <summary>
    /// aes_gcm_enc_256: expanded key, context (struct gcm_context_data), output, input, length, IV of 12 bytes, additional
    /// data and its length, tag and its length. It neither blocks nor calls back, and takes less than a microsecond.
    /// </summary>
    public GcmFunction Encrypt { get; }

    /// <summary>aes_gcm_dec_256, as <see cref="Encrypt"/>. It computes the tag; the caller compares.</summary>
    public GcmFunction Decrypt { get; }

    /// <summary>The library, or null and why it is not used.</summary>
    public static IpsecMb? TryLoad(out string problem)
    {
        if (InstructionSet() is not { } set)
        {
            problem = "Intel IPsec-MB is for x86-64 processors with AES and carry-less multiplication";
            return null;
        }
        if (Find(out var file) is not { } handle)
        {
            problem = Environment.GetEnvironmentVariable(EnvironmentVariable) is { Length: > 0 } named
                ? $"{EnvironmentVariable} names '{named}', which can't be loaded"
                : "Intel IPsec-MB is not installed; it seals about twice as fast (Debian: apt install libipsec-mb1)";
            return null;
        }
        if (
            NativeLibrary.TryGetExport(handle, $"aes_gcm_pre_256_{set}", out var prepare)
            && NativeLibrary.TryGetExport(handle, $"aes_gcm_enc_256_{set}", out var encrypt)
            && NativeLibrary.TryGetExport(handle, $"aes_gcm_dec_256_{set}", out var decrypt)
            && NativeLibrary.TryGetExport(handle, "imb_get_version_str", out var version)
        )
        {
            var text = Marshal.PtrToStringUTF8(((delegate* unmanaged<nint>)version)());
            problem = "";
            return new IpsecMb($"Intel IPsec-MB {text}, {set} ({file})", prepare, encrypt, decrypt);
        }
        NativeLibrary.Free(handle);
        problem = $"{file} does not export AES-256-GCM for {set}";
        return null;
    }

    /// <summary>No folder but the program's own and the system's, unless the environment names a file.</summary>
    private static nint? Find(out string file)
    {
        string[] candidates = Environment.GetEnvironmentVariable(EnvironmentVariable) is { Length: > 0 } named
            ? [named]
            :
            [
                Path.Combine(AppContext.BaseDirectory, "libIPSec_MB.so.1"),
                Path.Combine(AppContext.BaseDirectory, "libIPSec_MB.so.2"),
                "libIPSec_MB.so.1",
                "libIPSec_MB.so.2",
            ];
        foreach (var candidate in candidates)
        {
            if (NativeLibrary.TryLoad(candidate, out var handle))
            {
                file = candidate;
                return handle;
            }
        }
        file = "";
        return null;
    }

    /// <summary>The suffix of the fastest functions that this processor and system can run; null: none.</summary>
    private static string? InstructionSet()
    {
        if (!X86Base.X64.IsSupported || !Aes.IsSupported || !Pclmulqdq.IsSupported)
        {
            return null;
        }
        // CPUID leaf 7, ECX: GFNI, VAES and VPCLMULQDQ (Intel SDM volume 2, CPUID). That the system saves the wide registers
        // is part of the runtime's own test for AVX-512.
        const int wide = 1 << 8 | 1 << 9 | 1 << 10;
        var isWide = (X86Base.CpuId(7, 0).Ecx & wide) == wide;
        return Avx512F.IsSupported && Avx512BW.IsSupported && Avx512DQ.IsSupported && Avx512F.VL.IsSupported
            ? isWide
                ? "vaes_avx512"
                : "avx512"
            : Avx2.IsSupported
                ? "avx_gen4"
                : Avx.IsSupported
                    ? "avx_gen2"
                    : "sse";
    }
}
