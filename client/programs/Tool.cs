using System.ComponentModel;
using System.Diagnostics;

namespace Lightway.Client.Programs;

/// <summary>What a program of the system has answered.</summary>
/// <param name="Code">Its exit code.</param>
/// <param name="Output">Its standard output.</param>
/// <param name="Errors">Its standard error, in one line.</param>
internal sealed record ToolResult(int Code, string Output, string Errors);

/// <summary>Runs programs of the system. None of them sees the variables that set options, passwords among them.</summary>
internal static class Tool
{
    private const int PatienceMs = 15_000;

    // A service's PATH may lack them, and so may that of a user who became root by su(1).
    private static readonly string[] SystemFolders = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"];

    /// <summary>Path of a program; null if it is not installed.</summary>
    public static string? Find(string name) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "")
            .Split(':', StringSplitOptions.RemoveEmptyEntries)
            .Concat(SystemFolders)
            .Select(folder => Path.Combine(folder, name))
            .FirstOrDefault(File.Exists);

    /// <summary>Runs a program to its end.</summary>
    /// <param name="path">As <see cref="Find"/> returns it.</param>
    /// <param name="input">For its standard input.</param>
    /// <exception cref="IOException">It can't be run, or does not end.</exception>
    public static ToolResult Run(string path, IEnumerable<string> arguments, string input = "")
    {
        var start = new ProcessStartInfo(path)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var argument in arguments)
        {
            start.ArgumentList.Add(argument);
        }
        foreach (var name in start.Environment.Keys.Where(name => name.StartsWith("LW_", StringComparison.Ordinal)))
        {
            _ = start.Environment.Remove(name);
        }
        start.Environment["LC_ALL"] = "C";
        start.Environment["PATH"] = string.Join(':', [start.Environment["PATH"] ?? "", .. SystemFolders]);
        try
        {
            using var process = Process.Start(start)!;
            var output = process.StandardOutput.ReadToEndAsync();
            var errors = process.StandardError.ReadToEndAsync();
            try
            {
                process.StandardInput.Write(input);
                process.StandardInput.Close();
            }
            catch (IOException)
            {
                // It has ended without reading: its exit code tells.
            }
            if (!process.WaitForExit(PatienceMs))
            {
                process.Kill();
                throw new IOException($"{path} did not end within {PatienceMs / 1000} s");
            }
            return new ToolResult(process.ExitCode, output.Result, errors.Result.Trim().ReplaceLineEndings(" "));
        }
        catch (Win32Exception error)
        {
            throw new IOException($"{path} can't be run: {error.Message}");
        }
    }
}
