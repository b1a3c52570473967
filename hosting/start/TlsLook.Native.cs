using System.Runtime.InteropServices;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;
using Microsoft.Win32.SafeHandles;

namespace Lightway.Hosting.Start;

/// <summary>The options that look into TLS, in the engine's terms: keylog and tls_debug.</summary>
public static partial class TlsLook
{
    // asm-generic/fcntl.h; the same on x86-64 and arm64 but for O_NOFOLLOW
    private const int O_WRONLY = 0x1;
    private const int O_CREAT = 0x40;
    private const int O_NOCTTY = 0x100;
    private const int O_APPEND = 0x400;
    private const int O_NONBLOCK = 0x800; // a FIFO without a reader is refused instead of waited for
    private const int O_CLOEXEC = 0x80000;
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    private static int O_NOFOLLOW => RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 0x8000 : 0x20000;

    /// <summary>Opens the key log and warns about it. Null: neither option is set.</summary>
    /// <param name="keylog">Path; null: none.</param>
    /// <param name="records">Log the records of handshakes.</param>
    /// <exception cref="ConfigurationException">The file can't be used, or the library hands no secrets out.</exception>
    public static TlsInsight? Open(string? keylog, bool records, ILogger log)
    {
        if (keylog is null && !records)
        {
            return null;
        }
        KeyLog? keys = null;
        if (keylog is not null)
        {
            Check(keylog);
            keys = new KeyLog(File(keylog));
            ProgramLog.Warning(
                log,
                $"keylog: the TLS secrets of every connection are written to \"{keylog}\": whoever reads it can decrypt recorded traffic; remove the option and the file when the search is over"
            );
        }
        return new TlsInsight { Keys = keys, Records = records ? line => ProgramLog.Tls(log, line) : null };
    }

    /// <summary>Checks as far as it is possible without making the file. Null: there is nothing to check.</summary>
    /// <exception cref="ConfigurationException">The file can't be used, or the library hands no secrets out.</exception>
    public static void Check(string? keylog)
    {
        if (keylog is null)
        {
            return;
        }
        if (FileStatus.Of(keylog) is { } status)
        {
            Require(keylog, status);
        }
        else if (!Directory.Exists(Path.GetDirectoryName(Path.GetFullPath(keylog))))
        {
            throw new ConfigurationException($"keylog: cannot write \"{keylog}\": its directory does not exist");
        }
        RequireSupport();
    }

    private static void RequireSupport()
    {
        if (!KeyLog.IsSupported)
        {
            throw new ConfigurationException(
                $"keylog: this library hands no secrets out: {WolfSslLibrary.EnsureUsable()}; build one with dotnet fsi build.fsx -t Native, or with HAVE_SECRET_CALLBACK"
            );
        }
    }

    private static SafeFileHandle File(string path)
    {
        var flags = O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK | O_CLOEXEC;
        var fd = open(path, flags, (uint)OwnerOnly);
        if (fd < 0)
        {
            var why = Marshal.GetPInvokeErrorMessage(Marshal.GetLastPInvokeError());
            throw new ConfigurationException($"keylog: cannot write \"{path}\": {why}");
        }
        var file = new SafeFileHandle(fd, ownsHandle: true);
        try
        {
            Require(path, FileStatus.Of(file));
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static void Require(string path, FileStatus status)
    {
        if (!status.IsFile)
        {
            throw new ConfigurationException($"keylog: \"{path}\" is not a file");
        }
        if (status.Owner != FileStatus.Self)
        {
            throw new ConfigurationException(
                $"keylog: \"{path}\" belongs to another user; choose another path, or remove it"
            );
        }
        if ((status.Permissions & ~OwnerOnly) != 0)
        {
            throw new ConfigurationException(
                $"keylog: \"{path}\" is open to others; run: chmod {FileChecks.Octal(OwnerOnly)} {path}"
            );
        }
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int open(string path, int flags, uint mode);
}
