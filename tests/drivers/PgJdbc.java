// Through a node with pgjdbc.
// java -cp postgresql.jar PgJdbc.java URL USER PASSWORD

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;

class PgJdbc {
    public static void main(String[] arguments) throws SQLException {
        try (Connection connection =
                DriverManager.getConnection(arguments[0], arguments[1], arguments[2])) {
            execute(connection, "create table fruits (id int primary key, name text)");
            connection.setAutoCommit(false);
            insert(connection, 1, "apple");
            connection.commit();
            insert(connection, 2, "plum");
            connection.rollback();
            connection.setAutoCommit(true);
            try {
                insert(connection, 1, "pear");
                throw new IllegalStateException("The same key was inserted twice.");
            } catch (SQLException refused) {
                check("23505", refused.getSQLState());
            }
            // The driver prepares a statement that it executes for the fifth time.
            for (int time = 0; time < 10; time++) {
                try (var statement = connection.prepareStatement(
                        "select current_user, name from fruits where id = ?")) {
                    statement.setInt(1, 1);
                    ResultSet rows = statement.executeQuery();
                    rows.next();
                    check("tenant_acme", rows.getString(1));
                    check("apple", rows.getString(2));
                }
            }
        }
        System.out.println("done");
    }

    private static void execute(Connection connection, String sql) throws SQLException {
        try (var statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    private static void insert(Connection connection, int id, String name) throws SQLException {
        try (var statement = connection.prepareStatement("insert into fruits values (?, ?)")) {
            statement.setInt(1, id);
            statement.setString(2, name);
            statement.executeUpdate();
        }
    }

    private static void check(String expected, String found) {
        if (!expected.equals(found)) {
            throw new IllegalStateException(found + " instead of " + expected);
        }
    }
}
