using System.Text;

namespace Lightway.Server.Auth;

public enum LoginKind
{
    Password = 0,
    Token,
}

/// <summary>What a client logs in with.</summary>
/// <param name="User">Who it says it is; empty with a token, which says it itself.</param>
/// <param name="Secret">Its password or token, UTF-8.</param>
public readonly record struct LoginProof(LoginKind Kind, string User, byte[] Secret)
{
    /// <summary>A login by user and password, which it keeps.</summary>
    public static LoginProof Password(string user, byte[] password) => new(LoginKind.Password, user, password);

    public static LoginProof Token(string token) => new(LoginKind.Token, "", Encoding.UTF8.GetBytes(token));

    /// <summary>What it is known by while it is checked, and after failures: the user, or the token itself.</summary>
    public ReadOnlySpan<byte> Key => Kind == LoginKind.Token ? Secret : Encoding.UTF8.GetBytes(User);
}
