"""The SMTP client.

aiosmtplib opens the connection and does EHLO, STARTTLS and AUTH (``connection``). Then
its transport is handed to our own protocol (``protocol``), on which the transactions
run (``session``).
"""
