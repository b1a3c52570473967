using System.Runtime.InteropServices;

namespace Lightway.Client.Resolver;

/// <summary>Changes of directory entries, as the system makes them: links are not followed. Results are errno values; 0: done.</summary>
internal static partial class Files
{
    // asm-generic/errno-base.h
    public const int EPERM = 1;
    public const int ENOENT = 2;
    public const int EACCES = 13;
    public const int EBUSY = 16;
    public const int EEXIST = 17;
    public const int EROFS = 30;

    /// <summary>Gives a file, or the symbolic link itself, a second name (link(2)).</summary>
    public static int Link(string path, string name) => link(path, name) == 0 ? 0 : Marshal.GetLastPInvokeError();

    /// <summary>Renames a file in the place of another one, at once (rename(2)).</summary>
    public static int Rename(string path, string name) => rename(path, name) == 0 ? 0 : Marshal.GetLastPInvokeError();

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int link(string path, string name);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int rename(string path, string name);
}
