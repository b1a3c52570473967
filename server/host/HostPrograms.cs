using System.ComponentModel;
using System.Diagnostics;

namespace Lightway.Server.Host;

/// <summary>Exit code and output of a program that has ended.</summary>
internal sealed record ProgramResult(int Code, string Output, string Error);

/// <summary>Runs the system's programs that a set-up of the host needs.</summary>
internal static class HostPrograms
{
    // The paths of users often lack the directories of root's programs.
    private static readonly string[] RootPath = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

    /// <summary>Path of a program; null if it is not installed.</summary>
    public static string? Find(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "")
            .Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Where(Path.IsPathRooted)
            .Concat(RootPath)
            .Select(directory => Path.Combine(directory, program))
            .FirstOrDefault(File.Exists);

    /// <summary>Runs a program to its end. One that is not installed, or can't be started, has code 127, as in a shell.</summary>
    /// <param name="input">For its standard input.</param>
    public static ProgramResult Run(IReadOnlyList<string> command, string input = "")
    {
        if (Find(command[0]) is not { } path)
        {
            return new ProgramResult(127, "", $"{command[0]} is not installed");
        }
        var start = new ProcessStartInfo(path, command.Skip(1))
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        start.Environment["LC_ALL"] = "C"; // its output is read
        try
        {
            using var process = Process.Start(start)!;
            var output = process.StandardOutput.ReadToEndAsync();
            var error = process.StandardError.ReadToEndAsync();
            try
            {
                process.StandardInput.Write(input);
                process.StandardInput.Close();
            }
            catch (IOException)
            {
                // It has ended without reading; its exit code says why.
            }
            process.WaitForExit();
            return new ProgramResult(process.ExitCode, output.Result, error.Result.Trim());
        }
        catch (Win32Exception error)
        {
            return new ProgramResult(127, "", error.Message);
        }
    }
}
