import optuna
import pytest
import sqlalchemy

from automed.study.patience import away


def test_what_is_asked_in_a_broken_transaction_is_told_by_what_broke_it() -> None:
    """Optuna asks again when an answer fails, and so hides the error of the server that went away."""
    psycopg = pytest.importorskip("psycopg")
    lost = psycopg.OperationalError("server closed the connection unexpectedly")
    with pytest.raises(optuna.exceptions.StorageInternalError) as told:
        try:
            try:
                raise sqlalchemy.exc.OperationalError("SELECT", {}, lost) from lost
            except sqlalchemy.exc.OperationalError:
                raise sqlalchemy.exc.PendingRollbackError("Can't reconnect")  # noqa: B904 - as SQLAlchemy does
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise optuna.exceptions.StorageInternalError("An exception is raised") from error
    assert away(told.value) == "server closed the connection unexpectedly"
    assert away(sqlalchemy.exc.PendingRollbackError("Can't reconnect")) == ""
