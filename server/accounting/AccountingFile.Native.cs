using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Lightway.Server.Accounting;

/// <summary>
/// A file that lines are appended to (O_APPEND, which .NET does not offer), each in one system call. It is made for its owner
/// only (mode 600); one that exists keeps its mode. A line of which only a part was written, as on a full disk, is ended
/// before the next one.
/// </summary>
internal sealed unsafe partial class AccountingFile : IAccountingSink
{
    // asm-generic/fcntl.h; the same on x86-64 and arm64
    private const int O_WRONLY = 1;
    private const int O_CREAT = 0x40;
    private const int O_APPEND = 0x400;
    private const int O_NONBLOCK = 0x800; // a named pipe without a reader is an error, and no wait
    private const int O_CLOEXEC = 0x80000;
    private const int OwnerOnly = 0x180; // 0600
    private const int EINTR = 4;

    private readonly string _path;
    private SafeFileHandle? _file;
    private bool _isTorn; // the last line has no end

    /// <exception cref="IOException">The file can't be opened.</exception>
    public AccountingFile(string path)
    {
        _path = path;
        _file = Open();
    }

    public void Write(ReadOnlySpan<byte> line)
    {
        _file ??= Open();
        if (_isTorn)
        {
            Append("\n"u8);
            _isTorn = false;
        }
        Append(line);
    }

    public void Reopen()
    {
        _file?.Dispose();
        _file = null;
    }

    public void Dispose() => _file?.Dispose();

    private void Append(ReadOnlySpan<byte> bytes)
    {
        var total = bytes.Length;
        while (!bytes.IsEmpty)
        {
            nint written;
            fixed (byte* start = bytes)
            {
                written = write(_file!, start, bytes.Length);
            }
            if (written < 0)
            {
                var errno = Marshal.GetLastPInvokeError();
                if (errno == EINTR)
                {
                    continue;
                }
                _isTorn |= bytes.Length < total;
                throw new IOException(Marshal.GetPInvokeErrorMessage(errno));
            }
            bytes = bytes[(int)written..];
        }
    }

    private SafeFileHandle Open()
    {
        SafeFileHandle file;
        fixed (byte* name = Encoding.UTF8.GetBytes(_path + '\0'))
        {
            file = open(name, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC, OwnerOnly);
        }
        if (file.IsInvalid)
        {
            var errno = Marshal.GetLastPInvokeError();
            file.Dispose();
            throw new IOException(Marshal.GetPInvokeErrorMessage(errno));
        }
        return file;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial SafeFileHandle open(byte* path, int flags, int mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint write(SafeFileHandle file, byte* bytes, nint count);
}
