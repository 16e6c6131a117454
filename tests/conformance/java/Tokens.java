import com.google.gson.JsonObject;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.Base64;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Makes tokens as an application's backend makes them; {@code ttl} is in seconds. */
record Tokens(String key, String user, long ttl) {
    static Tokens of(JsonObject given) {
        return new Tokens(
                given.get("key").getAsString(),
                given.get("user").getAsString(),
                given.get("ttl").getAsLong());
    }

    /** A connection token, or with a channel a subscription token. */
    String sign(String channel) throws GeneralSecurityException {
        JsonObject claims = new JsonObject();
        claims.addProperty("sub", user);
        claims.addProperty("exp", System.currentTimeMillis() / 1000 + ttl);
        if (!channel.isEmpty()) {
            claims.addProperty("channel", channel);
        }
        String body = encoded("{\"alg\":\"HS256\"}") + "." + encoded(claims.toString());
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        return body + "." + encoded(mac.doFinal(body.getBytes(StandardCharsets.UTF_8)));
    }

    private static String encoded(String text) {
        return encoded(text.getBytes(StandardCharsets.UTF_8));
    }

    private static String encoded(byte[] bytes) {
        return Base64.getUrlEncoder().withoutPadding().encodeToString(bytes);
    }
}
